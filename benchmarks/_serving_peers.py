"""Servers of others, each with its documented way to batch, over the same ONNX file.

python _serving_peers.py NAME PORT FOLDER
"""

import json
import os
import sys
from pathlib import Path
from typing import Any


def session_of(folder: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession((folder / "model.onnx").read_bytes(), options)


def told(row: list[float]) -> dict[str, Any]:
    return {"label": str(row.index(max(row))), "probabilities": {str(i): value for i, value in enumerate(row)}}


def litserve(port: int, folder: Path) -> None:
    """Its workers are other processes: what they run must be importable."""
    (folder / "lit_service.py").write_text(LIT)
    os.environ["SERVED_FOLDER"] = str(folder)
    os.environ["PYTHONPATH"] = f"{Path(__file__).parent}:{folder}"
    os.execv(sys.executable, [sys.executable, str(folder / "lit_service.py"), str(port)])


LIT = """
import os
import sys
from pathlib import Path
import litserve as ls
import numpy as np
from _serving_peers import session_of, told

class Api(ls.LitAPI):
    def setup(self, device):
        self.session = session_of(Path(os.environ["SERVED_FOLDER"]))
        self.shape = self.session.get_inputs()[0].shape[1:]

    def decode_request(self, request):
        return np.array(request["rows"][0], np.float32).reshape(self.shape)

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, batch):
        return self.session.run(["probabilities"], {"input": batch})[0]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"predictions": [told(output.tolist())]}

if __name__ == "__main__":
    server = ls.LitServer(Api(max_batch_size=64, batch_timeout=0.0), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
"""


BENTO = """
import os
from pathlib import Path
import bentoml
import numpy as np
from _serving_peers import session_of, told

@bentoml.service(workers=1, traffic={"timeout": 30})
class Served:
    def __init__(self):
        self.session = session_of(Path(os.environ["SERVED_FOLDER"]))
        self.shape = self.session.get_inputs()[0].shape[1:]

    @bentoml.api(route="/predict")
    def predict(self, rows: list) -> dict:
        batch = np.array(rows, np.float32).reshape(-1, *self.shape)
        return {"predictions": [told(row) for row in self.session.run(["probabilities"], {"input": batch})[0].tolist()]}
"""


def bentoml(port: int, folder: Path) -> None:
    (folder / "bento_service.py").write_text(BENTO)
    os.environ["SERVED_FOLDER"] = str(folder)
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    os.environ["BENTOML_DO_NOT_TRACK"] = "true"
    program = Path(sys.executable).with_name("bentoml")
    os.chdir(folder)
    os.execv(program, [str(program), "serve", "bento_service:Served", "--port", str(port), "--host", "127.0.0.1"])


MLSERVER = """
import os
from pathlib import Path
import numpy as np
from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput
from _serving_peers import session_of

class Served(MLModel):
    async def load(self):
        self.session = session_of(Path(os.environ["SERVED_FOLDER"]))
        return True

    async def predict(self, payload):
        tensor = payload.inputs[0]
        batch = np.array(tensor.data.root, np.float32).reshape(tensor.shape)
        answer = self.session.run(["probabilities"], {"input": batch})[0]
        label = answer.argmax(1)
        return InferenceResponse(model_name=self.name, outputs=[
            ResponseOutput(name="label", shape=[len(label)], datatype="INT64", data=label.tolist()),
            ResponseOutput(
                name="probabilities", shape=list(answer.shape), datatype="FP32", data=answer.ravel().tolist()
            ),
        ])
"""


def mlserver(port: int, folder: Path) -> None:
    """In one process, as one core allows; its batches wait for a timer, which is off unless one asks for it."""
    served = folder / "mlserver"
    served.mkdir()
    (served / "ml_service.py").write_text(MLSERVER)
    quiet = {"debug": False, "parallel_workers": 0, "metrics_endpoint": None, "use_structured_logging": False}
    ports = {"http_port": port, "grpc_port": port + 1 if port < 65535 else port - 1, "host": "127.0.0.1"}
    (served / "settings.json").write_text(json.dumps(quiet | ports))
    settings = {"name": folder.name, "implementation": "ml_service.Served"}
    (served / "model-settings.json").write_text(json.dumps(settings))
    os.environ["SERVED_FOLDER"] = str(folder)
    os.environ["PYTHONPATH"] = f"{Path(__file__).parent}:{served}"
    program = Path(sys.executable).with_name("mlserver")
    os.chdir(served)
    os.execv(program, [str(program), "start", "."])


if __name__ == "__main__":
    {"litserve": litserve, "bentoml": bentoml, "mlserver": mlserver}[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))
