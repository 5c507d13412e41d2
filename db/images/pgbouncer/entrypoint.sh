#!/bin/sh
# Writes what the task was given to memory and becomes PgBouncer.
# PGBOUNCER_INI: the whole pgbouncer.ini. APP_PASSWORD: the application user's, from its secret.
set -eu
umask 077

folder=${PGBOUNCER_FOLDER:-/run/pgbouncer}
: "${PGBOUNCER_INI:?is empty: the task definition gives it}"
: "${APP_USER:?is empty: the task definition gives it}"
: "${APP_PASSWORD:?is empty: the task definition gives it from the secret}"

printf '%s\n' "$PGBOUNCER_INI" >"$folder/pgbouncer.ini"
# The auth file doubles a quote inside a value.
printf '"%s" "%s"\n' "$APP_USER" "$(printf '%s' "$APP_PASSWORD" | sed 's/"/""/g')" \
    >"$folder/userlist.txt"
unset APP_PASSWORD

exec pgbouncer "$folder/pgbouncer.ini"
