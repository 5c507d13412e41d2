"""The one renderer of pgbouncer.ini and its auth file.

Each setting's reason stands beside it; what a setting does is in PgBouncer's own config reference.
"""

import re
from dataclasses import dataclass, field

# Descriptors: 800 clients, 100 servers for each of two databases, listeners and logs stay below
# the 1024 that a container gets by default. Past that limit clients hang without an error.
DESCRIPTORS = 1024
_DESCRIPTORS_OF_ITS_OWN = 24

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_VERIFIER = re.compile(
    r"SCRAM-SHA-256\$[1-9]\d*:[A-Za-z0-9+/]+=*\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}="
)
_HOST = re.compile(r"[A-Za-z0-9.:-]+")


def _check(condition: bool, setting: str, value: object, remedy: str) -> None:
    if not condition:
        raise ValueError(f"db/pgbouncer.py: {setting} is {value!r}; {remedy}")


@dataclass(frozen=True, kw_only=True)
class Route:
    """A database name that clients ask for, and the server that answers behind it.

    With a `user` PgBouncer logs in to the server as that one, whoever the client is, and all
    clients of the name share one pool; its password stands in the auth file. Raises ValueError for
    a value that would change the meaning of pgbouncer.ini.
    """

    name: str
    host: str
    port: int
    database: str
    user: str = ""

    def __post_init__(self) -> None:
        for setting in ("name", "database"):
            value = getattr(self, setting)
            _check(
                bool(_NAME.fullmatch(value)), f"Route.{setting}", value, "use letters, digits, _.-"
            )
        _check(
            not self.user or bool(_NAME.fullmatch(self.user)), "Route.user", self.user, "use a name"
        )
        _check(self.name != "pgbouncer", "Route.name", self.name, "PgBouncer keeps that name")
        _check(bool(_HOST.fullmatch(self.host)), "Route.host", self.host, "use a host name or IP")
        _check(1 <= self.port <= 65535, "Route.port", self.port, "use 1 to 65535")


@dataclass(frozen=True, kw_only=True)
class Login:
    """One line of the auth file: a user, and the SCRAM verifier (db/scram.py) it logs in against.

    With the verifier that PostgreSQL itself holds, PgBouncer logs in to the server with the keys
    that the client's login proved (SCRAM pass-through): no plaintext is stored anywhere. Raises
    ValueError for anything but a verifier.
    """

    user: str
    verifier: str = field(repr=False)

    def __post_init__(self) -> None:
        _check(bool(_NAME.fullmatch(self.user)), "Login.user", self.user, "use letters, digits, _")
        _check(
            bool(_VERIFIER.fullmatch(self.verifier)),
            f"Login.verifier of {self.user}",
            "(not shown)",
            "give a SCRAM-SHA-256 verifier, never a password",
        )


@dataclass(frozen=True, kw_only=True)
class PgBouncerSettings:
    """Everything a PgBouncer process is told. Times are in seconds, sizes in connections.

    A pool is the server connections of one (database, user) pair in one process. "Default pool
    size 20, at most 100 connections per pool" is `default_pool_size` and `max_db_connections`: both
    limit *server* connections, and a client past them waits. The client limits refuse at once.
    Raises ValueError for values that contradict each other.
    """

    routes: tuple[Route, ...]
    listen_addresses: tuple[str, ...]
    listen_port: int = 5432
    auth_file: str
    admin_user: str

    default_pool_size: int = 20
    max_db_connections: int = 100
    max_db_client_connections: int = 600
    max_client_conn: int = 800
    max_prepared_statements: int = 200

    query_wait_timeout_seconds: int = 15
    idle_transaction_timeout_seconds: int = 60
    client_login_timeout_seconds: int = 15
    server_login_retry_seconds: int = 1
    is_logging_stats: bool = False

    # Files: the authorities that a server's certificate must come from; what clients are shown.
    server_authorities: str = ""
    certificate: str = ""
    key: str = ""
    is_client_tls_required: bool = False

    def __post_init__(self) -> None:
        _check(
            bool(self.routes), "PgBouncerSettings.routes", self.routes, "name at least one database"
        )
        names = [route.name for route in self.routes]
        _check(
            len(set(names)) == len(names),
            "PgBouncerSettings.routes",
            names,
            "name each database once",
        )
        _check(
            bool(self.listen_addresses)
            and all(_HOST.fullmatch(a) or a == "*" for a in self.listen_addresses),
            "PgBouncerSettings.listen_addresses",
            self.listen_addresses,
            "use IP addresses or *",
        )
        _check(
            1 <= self.listen_port <= 65535,
            "PgBouncerSettings.listen_port",
            self.listen_port,
            "1 to 65535",
        )
        _check(
            bool(_NAME.fullmatch(self.admin_user)),
            "PgBouncerSettings.admin_user",
            self.admin_user,
            "a name",
        )
        for setting in ("auth_file", "server_authorities", "certificate", "key"):
            value = getattr(self, setting)
            _check(
                bool(re.fullmatch(r"/[^\n]+", value)) or (not value and setting != "auth_file"),
                f"PgBouncerSettings.{setting}",
                value,
                "use one line, an absolute path",
            )
        _check(
            bool(self.certificate) == bool(self.key),
            "PgBouncerSettings.key",
            self.key,
            "give both or none",
        )
        _check(
            bool(self.certificate) or not self.is_client_tls_required,
            "PgBouncerSettings.is_client_tls_required",
            self.is_client_tls_required,
            "give a certificate and a key",
        )
        for setting in (
            "max_prepared_statements",
            "query_wait_timeout_seconds",
            "idle_transaction_timeout_seconds",
            "client_login_timeout_seconds",
            "server_login_retry_seconds",
        ):
            value = getattr(self, setting)
            _check(
                value > 0,
                f"PgBouncerSettings.{setting}",
                value,
                "use 1 or more: 0 would switch it off",
            )
        _check(
            1 <= self.default_pool_size <= self.max_db_connections,
            "PgBouncerSettings.default_pool_size",
            self.default_pool_size,
            f"use 1 to max_db_connections ({self.max_db_connections})",
        )
        _check(
            self.max_db_connections < self.max_db_client_connections <= self.max_client_conn,
            "PgBouncerSettings.max_db_client_connections",
            self.max_db_client_connections,
            f"use more than max_db_connections ({self.max_db_connections}), "
            f"at most max_client_conn ({self.max_client_conn})",
        )
        _check(
            self.descriptors <= DESCRIPTORS,
            "PgBouncerSettings.max_client_conn",
            self.max_client_conn,
            f"lower it: clients and servers need {self.descriptors} of {DESCRIPTORS} descriptors",
        )

    @property
    def descriptors(self) -> int:
        """The most file descriptors that one process can need."""
        servers = len(self.routes) * self.max_db_connections
        return self.max_client_conn + servers + _DESCRIPTORS_OF_ITS_OWN


def render_ini(pooler: PgBouncerSettings) -> str:
    """The whole pgbouncer.ini."""
    routes = "\n".join(
        f"{r.name} = host={r.host} port={r.port} dbname={r.database}"
        + (f" user={r.user}" if r.user else "")
        for r in pooler.routes
    )
    return f"""\
; Rendered by db/pgbouncer.py: edit that, not this.
[databases]
{routes}

[pgbouncer]
listen_addr = {",".join(pooler.listen_addresses)}
listen_port = {pooler.listen_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {pooler.auth_file}
admin_users = {pooler.admin_user}

; A server connection belongs to a client for one transaction.
pool_mode = transaction
default_pool_size = {pooler.default_pool_size}
max_db_connections = {pooler.max_db_connections}
max_db_client_connections = {pooler.max_db_client_connections}
max_client_conn = {pooler.max_client_conn}
; Without it drivers that prepare by themselves get each other's statements.
max_prepared_statements = {pooler.max_prepared_statements}
; The JDBC driver sends it at login; PgBouncer would refuse the login.
ignore_startup_parameters = extra_float_digits

; A client past the pool size waits this long for a server, then learns why.
query_wait_timeout = {pooler.query_wait_timeout_seconds}
; One client idle in a transaction must not hold a server for ever.
idle_transaction_timeout = {pooler.idle_transaction_timeout_seconds}
client_login_timeout = {pooler.client_login_timeout_seconds}
; The default, 15, is what a failover would cost.
server_login_retry = {pooler.server_login_retry_seconds}
; A failover moves the name to another address. The resolver keeps the old one for the record's 5 s,
; and PgBouncer would keep the answer for as long again.
dns_max_ttl = 1
dns_nxdomain_ttl = 1
; A host that is lost answers nothing, not even no: noticed after 5 s when connecting, after 30 s
; otherwise. It holds for clients too: one that stops reading its result for 30 s is cut off.
server_connect_timeout = 5
tcp_user_timeout = 30000
; Below the load balancer's idle timeout of 350 s.
tcp_keepalive = 1
tcp_keepidle = 15
tcp_keepintvl = 5
tcp_keepcnt = 3
{_render_tls(pooler)}
; Rates and waits, once a minute, where something reads them.
log_stats = {int(pooler.is_logging_stats)}
"""


def _render_tls(pooler: PgBouncerSettings) -> str:
    lines: list[str] = []
    if pooler.server_authorities:
        lines += [
            "",
            "; The server must show a certificate of its own name, from these authorities.",
            "server_tls_sslmode = verify-full",
            f"server_tls_ca_file = {pooler.server_authorities}",
        ]
    if pooler.certificate:
        lines += [
            "",
            f"client_tls_sslmode = {'require' if pooler.is_client_tls_required else 'allow'}",
            f"client_tls_cert_file = {pooler.certificate}",
            f"client_tls_key_file = {pooler.key}",
            "; No client shows a certificate, and yet a file of authorities is wanted.",
            f"client_tls_ca_file = {pooler.certificate}",
        ]
    return "\n".join(lines) + ("\n" if lines else "")


def render_auth_file(logins: tuple[Login, ...]) -> str:
    """The whole auth file. It holds verifiers: give it mode 0600."""
    users = [login.user for login in logins]
    _check(len(set(users)) == len(users), "auth file users", users, "name each user once")
    return "".join(f'"{login.user}" "{login.verifier}"\n' for login in logins)
