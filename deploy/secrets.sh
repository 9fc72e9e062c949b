#!/bin/sh
# Makes the secrets that docker-compose.yml names, in deploy/secrets/ or in the folder given. Runs once: what is
# there stays. The folder can be entered by its owner alone; the files in it can be read by the containers' users.
set -eu

folder="${1:-$(dirname "$0")/secrets}"
mkdir -p "$folder"
chmod 700 "$folder"

random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

keep() { # NAME VALUE
    [ -e "$folder/$1" ] && return 0
    printf '%s\n' "$2" >"$folder/$1.partial"
    chmod 444 "$folder/$1.partial"
    mv "$folder/$1.partial" "$folder/$1"
}

keep postgres_password "$(random 24)"
keep valkey_conf "requirepass $(random 24)
save \"\"
appendonly no"
keep database_url "postgresql+psycopg://evenkeel:$(cat "$folder/postgres_password")@postgres:5432/evenkeel"
keep broker_url "redis://:$(sed -n 's/^requirepass //p' "$folder/valkey_conf")@valkey:6379/0"
keep admin_key "ek_$(random 13)_$(random 32)"
