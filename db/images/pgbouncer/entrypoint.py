#!/bin/sh
# Writes what the task was given to memory and becomes PgBouncer.
# PGBOUNCER_INI: the whole pgbouncer.ini, @SERVER_USER@ where that user's name belongs. HOST_NAME:
# what clients call it. CLIENT_USERS: whom clients log in as, by spaces, and PASSWORD_{user} of each;
# only verifiers are kept. SERVER_USER, SERVER_PASSWORD: whom PgBouncer logs in as; PostgreSQL wants
# the password itself.
set -eu
umask 077

folder=${PGBOUNCER_FOLDER:-/run/pgbouncer}
: "${PGBOUNCER_INI:?is empty: the task definition gives it}"
: "${HOST_NAME:?is empty: the task definition gives it}"
: "${CLIENT_USERS:?is empty: the task definition gives it}"
: "${SERVER_USER:?is empty: the task definition gives it from the secret}"
: "${SERVER_PASSWORD:?is empty: the task definition gives it from the secret}"
for user in $CLIENT_USERS "$SERVER_USER"; do
    case $user in
    *[!a-z_]*)
        echo "a user is called '$user': use small letters and _, as Flyway's callback does" >&2
        exit 1
        ;;
    esac
done

cd "$folder"
rm -f key.pem certificate.pem
credentials certificate "$HOST_NAME"
printf '%s\n' "$PGBOUNCER_INI" | sed "s/@SERVER_USER@/$SERVER_USER/g" >pgbouncer.ini
for user in $CLIENT_USERS; do
    eval "password=\${PASSWORD_$user:?is empty: the task definition gives it from the secret}"
    verifier=$(printf '%s' "$password" | credentials verifier)
    printf '"%s" "%s"\n' "$user" "$verifier"
    unset "PASSWORD_$user"
done >userlist.partial
# The auth file doubles a quote inside a value.
printf '"%s" "%s"\n' "$SERVER_USER" "$(printf '%s' "$SERVER_PASSWORD" | sed 's/"/""/g')" \
    >>userlist.partial
mv userlist.partial userlist.txt
unset SERVER_PASSWORD password verifier

exec pgbouncer "$folder/pgbouncer.ini"
