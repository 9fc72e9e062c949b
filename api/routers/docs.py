"""`/docs`: the operations of /openapi.json on one page that loads nothing from elsewhere."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter()

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>evenkeel: HTTP interface</title><link rel="icon" href="data:,">
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
h2 { margin-top: 2rem; border-bottom: 1px solid #d0d7de } summary { cursor: pointer; padding: .3rem 0 }
b { display: inline-block; min-width: 4.5rem; color: #0550ae } code, pre, b { font-family: ui-monospace, monospace }
pre { background: #f6f8fa; padding: .8rem; overflow-x: auto; font-size: 13px } td { padding: .1rem 1rem .1rem 0;
vertical-align: top } details details { margin-left: 1rem } .about { white-space: pre-line }
</style>
<h1 id="title">evenkeel</h1><p id="about">Reading <a href="/openapi.json">/openapi.json</a> …</p>
<p>Every request under /v1 carries <code>Authorization: Bearer ek_…</code>. The whole description, for tools:
<a href="/openapi.json">/openapi.json</a>.</p><main></main><h2>Schemas</h2><div id="schemas"></div>
<script>
const make = (tag, text = "", cls = "") =>
  Object.assign(document.createElement(tag), {textContent: text, className: cls});
const pretty = value => make("pre", JSON.stringify(value, null, 2));
const named = schema => schema?.$ref ? schema.$ref.split("/").pop() : schema?.type ?? schema?.title ?? "";
function fold(title, ...parts) {
  const box = make("details"); box.append(make("summary", title), ...parts); return box;
}
function parameters(list) {
  const table = make("table");
  for (const one of list) {
    const row = make("tr"), name = make("td"); name.append(make("code", one.name));
    const kind = one.in + (one.required ? ", required" : "") + (one.description ? ": " + one.description : "");
    row.append(name, make("td", kind)); table.append(row);
  }
  return table;
}
function operation(method, path, one) {
  const box = make("details"), head = make("summary");
  head.append(make("b", method.toUpperCase()), make("code", path), " " + (one.summary ?? "")); box.append(head);
  if (one.description) box.append(make("p", one.description, "about"));
  if (one.parameters?.length) box.append(parameters(one.parameters));
  for (const [kind, body] of Object.entries(one.requestBody?.content ?? {})) {
    box.append(make("p", "Body: " + kind + " " + named(body.schema)));
    for (const [name, example] of Object.entries(body.examples ?? {}))
      box.append(make("p", name), pretty(example.value));
  }
  for (const [status, answer] of Object.entries(one.responses ?? {})) {
    const content = Object.entries(answer.content ?? {});
    const kinds = content.map(([kind, body]) => kind + " " + named(body.schema)).join(", ");
    box.append(make("div", status + ": " + answer.description + (kinds ? " (" + kinds + ")" : "")));
  }
  return box;
}
fetch("/openapi.json").then(answer => answer.json()).then(api => {
  document.getElementById("title").textContent = api.info.title + " " + api.info.version;
  document.getElementById("about").textContent = api.info.description;
  const groups = new Map(), main = document.querySelector("main");
  for (const [path, methods] of Object.entries(api.paths)) for (const [method, one] of Object.entries(methods)) {
    const tag = one.tags?.[0] ?? "service";
    groups.set(tag, [...(groups.get(tag) ?? []), operation(method, path, one)]);
  }
  for (const [tag, boxes] of groups) main.append(make("h2", tag), ...boxes);
  for (const [name, schema] of Object.entries(api.components.schemas))
    document.getElementById("schemas").append(fold(name, pretty(schema)));
}).catch(error => { document.getElementById("about").textContent = "/openapi.json can not be read: " + error; });
</script></html>
"""


@router.get("/docs", include_in_schema=False)
def docs() -> HTMLResponse:
    return HTMLResponse(PAGE)
