#!/bin/sh
# Writes what the task was given to memory and becomes PgBouncer.
# PGBOUNCER_INI: the whole pgbouncer.ini, @SERVER_USER@ where that user's name belongs. HOST_NAME:
# what clients call it. APP_USER, APP_PASSWORD: whom clients log in as; only a verifier is kept.
# SERVER_USER, SERVER_PASSWORD: whom PgBouncer logs in as; PostgreSQL wants the password itself.
set -eu
umask 077

folder=${PGBOUNCER_FOLDER:-/run/pgbouncer}
: "${PGBOUNCER_INI:?is empty: the task definition gives it}"
: "${HOST_NAME:?is empty: the task definition gives it}"
: "${APP_USER:?is empty: the task definition gives it}"
: "${APP_PASSWORD:?is empty: the task definition gives it from the secret}"
: "${SERVER_USER:?is empty: the task definition gives it from the secret}"
: "${SERVER_PASSWORD:?is empty: the task definition gives it from the secret}"
case $SERVER_USER in
*[!a-z_]*)
    echo "SERVER_USER is '$SERVER_USER': use small letters and _, as Flyway's callback does" >&2
    exit 1
    ;;
esac

cd "$folder"
rm -f key.pem certificate.pem
credentials certificate "$HOST_NAME"
printf '%s\n' "$PGBOUNCER_INI" | sed "s/@SERVER_USER@/$SERVER_USER/g" >pgbouncer.ini
verifier=$(printf '%s' "$APP_PASSWORD" | credentials verifier)
{
    printf '"%s" "%s"\n' "$APP_USER" "$verifier"
    # The auth file doubles a quote inside a value.
    printf '"%s" "%s"\n' "$SERVER_USER" "$(printf '%s' "$SERVER_PASSWORD" | sed 's/"/""/g')"
} >userlist.partial
mv userlist.partial userlist.txt
unset APP_PASSWORD SERVER_PASSWORD verifier

exec pgbouncer "$folder/pgbouncer.ini"
