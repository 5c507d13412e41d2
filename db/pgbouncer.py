"""Renders pgbouncer.ini and its auth file, for localhost and for AWS.

The reason of each setting stands beside it. https://www.pgbouncer.org/config.html says what each
setting does.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

# In the image, the entry point writes these files to memory when the task starts.
RUN_FOLDER = "/run/pgbouncer"
AUTH_FILE = f"{RUN_FOLDER}/userlist.txt"
CERTIFICATE = f"{RUN_FOLDER}/certificate.pem"
KEY = f"{RUN_FOLDER}/key.pem"

# The memory that the client limits reserve for one client. Measured with 10,240 clients with TLS in
# the image, with PgBouncer 1.24.1 and OpenSSL 3.5: a client costs 22.9 KiB at rest, 28.0 KiB after
# all clients sent a query at once, and 30.3 KiB with 20 prepared statements each. With OpenSSL 3.0
# these are 15.2, 20.3 and 22.6 KiB. Without TLS a client costs 1.9 KiB at rest.
# tests/integration/test_many_clients.py measures this again.
CLIENT_KIB = 32
# PgBouncer without clients takes 8 MiB, the process that reports its metrics 10 MiB (measured), and
# the health check of ECS as much while it runs. The files in memory take less than 1 MiB.
_MEMORY_OF_ITS_OWN_MIB = 32
# The smallest task of Fargate has this memory. The same limits hold on localhost.
DEFAULT_MEMORY_MIB = 512
# Past its limit of file descriptors PgBouncer accepts nobody, and clients hang without an error. So
# the client limits stay below it. Fargate allows this many for a task
# (https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Ulimit.html).
DESCRIPTORS_AT_MOST = 1_048_576
_DESCRIPTORS_OF_ITS_OWN = 24  # listeners, logs, the event loop and the console

_Rule = tuple[Callable[[str], object], str]  # whether a value is right, and what to use instead


def _is_port(value: str) -> bool:
    return bool(re.fullmatch(r"[1-9][0-9]{0,4}", value)) and int(value) <= 65535


_NAME: _Rule = (re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*").fullmatch, "use letters, digits, _.-")
_HOST: _Rule = (re.compile(r"[A-Za-z0-9.:-]+").fullmatch, "use a host name or an IP address")
_HOSTS: _Rule = (
    re.compile(r"[A-Za-z0-9.:-]+(,[A-Za-z0-9.:-]+)*").fullmatch,
    "use host names or IP addresses, separated by commas",
)
_PORT: _Rule = (_is_port, "use 1 to 65535")
# The names that db/callbacks/beforeMigrate__create_roles.sql accepts.
_ROLE: _Rule = (re.compile(r"[a-z_]+").fullmatch, "use small letters and _")
_VERIFIER = re.compile(
    r"SCRAM-SHA-256\$[1-9]\d*:[A-Za-z0-9+/]+=*\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}="
)
# PgBouncer sends this query after each transaction. PgBouncer ignores an error of the query, and
# would give the session of one client to the next. With exit_on_error, PostgreSQL ends the session
# at an error, and PgBouncer opens another. The procedure resets exit_on_error too.
# db/callbacks/beforeMigrate__create_session_reset.sql makes it. PgBouncer sends at most 500 bytes.
SESSION_RESET = "SET exit_on_error = on; CLOSE ALL; CALL cloudflow.reset_session()"

_MARK = re.compile(r"@([A-Za-z0-9_]+)@")


def _check(condition: bool, setting: str, value: object, remedy: str) -> None:
    if not condition:
        raise ValueError(f"db/pgbouncer.py: {setting} is {value!r}; {remedy}")


def _check_rule(rule: _Rule, setting: str, value: str) -> None:
    is_right, remedy = rule
    _check(bool(is_right(value)), setting, value, remedy)


@dataclass(frozen=True, kw_only=True)
class ClientLimits:
    """The most clients of one process."""

    process: int

    @property
    def database(self) -> int:
        """The most clients of one database name.

        The other third stays free for the other database name, and for connections that have not
        logged in yet.
        """
        return self.process * 2 // 3


def plan_client_limits(memory_mib: int) -> ClientLimits:
    """The clients that fit into the memory of one process."""
    free_kib = (memory_mib - _MEMORY_OF_ITS_OWN_MIB) * 1024
    return ClientLimits(process=free_kib // CLIENT_KIB)


_DEFAULT_LIMITS = plan_client_limits(DEFAULT_MEMORY_MIB)


class Placeholder(StrEnum):
    """A value that is known only when a task starts.

    The rendered ini holds it as @NAME@. fill_ini() puts the variable of that name in its place.
    """

    WRITER_HOST = "@WRITER_HOST@"
    WRITER_PORT = "@WRITER_PORT@"
    READER_HOSTS = "@READER_HOSTS@"  # separated by commas
    READER_PORT = "@READER_PORT@"
    SERVER_DATABASE = "@SERVER_DATABASE@"
    SERVER_USER = "@SERVER_USER@"


_FILLED: dict[str, _Rule] = {
    Placeholder.WRITER_HOST.name: _HOST,
    Placeholder.WRITER_PORT.name: _PORT,
    Placeholder.READER_HOSTS.name: _HOSTS,
    Placeholder.READER_PORT.name: _PORT,
    Placeholder.SERVER_DATABASE.name: _NAME,
    Placeholder.SERVER_USER.name: _ROLE,
}


@dataclass(frozen=True, kw_only=True)
class Route:
    """A database name that clients ask for, and the server behind it.

    With a `user`, PgBouncer logs in to the server as that user for every client, and all clients of
    the name share one pool. The auth file then holds the password of that user. Raises ValueError
    for a value that would change the meaning of pgbouncer.ini.
    """

    name: str
    host: str
    port: int | Placeholder
    database: str
    user: str = ""

    def __post_init__(self) -> None:
        _check(self.name != "pgbouncer", "Route.name", self.name, "PgBouncer reserves that name")
        rules = {"name": _NAME, "host": _HOST, "port": _PORT, "database": _NAME}
        if self.user:
            rules["user"] = _NAME
        for setting, rule in rules.items():
            value = getattr(self, setting)
            if not isinstance(value, Placeholder):
                _check_rule(rule, f"Route.{setting}", str(value))


@dataclass(frozen=True, kw_only=True)
class Login:
    """A user that clients log in as, and the SCRAM verifier (db/scram.py) of its password.

    With the verifier that PostgreSQL itself holds, PgBouncer logs in to the server with the keys
    that the client's login proved (SCRAM pass-through), and no plaintext is stored anywhere. Raises
    ValueError for anything but a verifier.
    """

    user: str
    verifier: str = field(repr=False)

    def __post_init__(self) -> None:
        _check_rule(_NAME, "Login.user", self.user)
        _check(
            bool(_VERIFIER.fullmatch(self.verifier)),
            f"Login.verifier of {self.user}",
            "(not shown)",
            "give a SCRAM-SHA-256 verifier, never a password",
        )


@dataclass(frozen=True, kw_only=True)
class ServerLogin:
    """The user that PgBouncer logs in to PostgreSQL as, where a Route names one.

    The auth file holds its password in plaintext, because PgBouncer has to prove it to PostgreSQL.
    """

    user: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        _check_rule(_NAME, "ServerLogin.user", self.user)
        _check(
            bool(self.password) and self.password.isprintable(),
            f"ServerLogin.password of {self.user}",
            "(not shown)",
            "use printable characters in one line",
        )


@dataclass(frozen=True, kw_only=True)
class PgBouncerSettings:
    """All settings of one PgBouncer process. Times are in seconds, sizes in connections.

    A pool holds the server connections of one (database, user) pair in one process. "Default pool
    size 20, at most 100 connections per pool" means `default_pool_size` and `max_db_connections`.
    Both limit server connections: a client past them waits. `max_db_client_connections` and
    `max_client_conn` limit clients: a client past them is refused at once. Raises ValueError for
    values that contradict each other.
    """

    routes: tuple[Route, ...]
    listen_addresses: tuple[str, ...]
    listen_port: int = 5432
    auth_file: str
    admin_user: str

    default_pool_size: int = 20
    max_db_connections: int = 100
    max_db_client_connections: int = _DEFAULT_LIMITS.database
    max_client_conn: int = _DEFAULT_LIMITS.process
    max_prepared_statements: int = 200
    # Whether a server connection is as if new after each transaction. False: what one client leaves
    # behind reaches the next (docs/pooling.md).
    is_session_reset: bool = True
    # Whether the log has a line for each login and each end of a connection. Refused clients and
    # failed logins have a line in any case.
    is_each_connection_logged: bool = True
    # Whether a search_path of the login is ignored. PgBouncer 1.26, which AWS runs, accepts one and
    # loses it after the first transaction. Older versions refuse such a login, which is better.
    is_search_path_ignored: bool = False

    # An idle transaction ends before the clients that wait for its server connection are refused.
    query_wait_timeout_seconds: int = 15
    idle_transaction_timeout_seconds: int = 10
    client_login_timeout_seconds: int = 15
    server_login_retry_seconds: int = 1
    # The folder of a Unix socket. Empty: no socket. A process of PgBouncer's own operating system
    # user may use the console there, as the user pgbouncer and without a password. So only that
    # user may enter the folder.
    socket_folder: str = ""

    # Paths of files. A server's certificate must come from one of these authorities.
    server_authorities: str = ""
    # Clients see this certificate.
    certificate: str = ""
    key: str = ""
    is_client_tls_required: bool = False

    def __post_init__(self) -> None:
        self._check_addresses()
        self._check_files()
        self._check_limits()

    def _check(self, setting: str, condition: object, remedy: str) -> None:
        name = f"PgBouncerSettings.{setting}"
        _check(bool(condition), name, getattr(self, setting), remedy)

    def _check_addresses(self) -> None:
        names = {route.name for route in self.routes}
        self._check("routes", self.routes, "name at least one database")
        self._check("routes", len(names) == len(self.routes), "name each database once")
        is_host, _ = _HOST
        is_right = all(is_host(address) or address == "*" for address in self.listen_addresses)
        self._check("listen_addresses", self.listen_addresses and is_right, "use IP addresses or *")
        for setting, (is_met, remedy) in {"listen_port": _PORT, "admin_user": _NAME}.items():
            self._check(setting, is_met(str(getattr(self, setting))), remedy)

    def _check_files(self) -> None:
        for setting in ("auth_file", "server_authorities", "certificate", "key", "socket_folder"):
            path = getattr(self, setting)
            is_absent = not path and setting != "auth_file"
            is_path = re.fullmatch(r"/[^\n]+", path)
            self._check(setting, is_absent or is_path, "use one line, an absolute path")
        has_certificate, has_key = bool(self.certificate), bool(self.key)
        self._check("key", has_certificate == has_key, "give a certificate and a key, or neither")
        is_possible = has_certificate or not self.is_client_tls_required
        self._check("is_client_tls_required", is_possible, "give a certificate and a key")

    def _check_limits(self) -> None:
        for setting in (
            "max_prepared_statements",
            "query_wait_timeout_seconds",
            "idle_transaction_timeout_seconds",
            "client_login_timeout_seconds",
            "server_login_retry_seconds",
        ):
            is_set = getattr(self, setting) > 0
            self._check(setting, is_set, "use 1 or more; 0 would switch the limit off")
        self._check(
            "default_pool_size",
            1 <= self.default_pool_size <= self.max_db_connections,
            f"use 1 to max_db_connections ({self.max_db_connections})",
        )
        self._check(
            "max_db_client_connections",
            self.max_db_connections < self.max_db_client_connections <= self.max_client_conn,
            f"use more than max_db_connections ({self.max_db_connections}) and "
            f"at most max_client_conn ({self.max_client_conn})",
        )
        self._check(
            "max_client_conn",
            self.descriptors <= DESCRIPTORS_AT_MOST,
            f"lower it: clients and servers need {self.descriptors} of {DESCRIPTORS_AT_MOST} "
            "descriptors",
        )
        self._check(
            "idle_transaction_timeout_seconds",
            self.idle_transaction_timeout_seconds < self.query_wait_timeout_seconds,
            f"use less than query_wait_timeout_seconds ({self.query_wait_timeout_seconds}), so "
            "that an idle transaction ends before the clients that wait for it are refused",
        )

    @property
    def descriptors(self) -> int:
        """The most file descriptors that one process can need."""
        servers = len(self.routes) * self.max_db_connections
        return self.max_client_conn + servers + _DESCRIPTORS_OF_ITS_OWN


def fit_descriptors(settings: PgBouncerSettings, limit: int) -> PgBouncerSettings:
    """The settings with client limits that a limit of file descriptors allows.

    Raises ValueError if the limit is too low for the clients of one full pool.
    """
    surplus = settings.descriptors - limit
    if surplus <= 0:
        return settings
    lowered = ClientLimits(process=settings.max_client_conn - surplus)
    return replace(
        settings,
        max_client_conn=lowered.process,
        max_db_client_connections=lowered.database,
    )


def render_ini(settings: PgBouncerSettings) -> str:
    """The whole pgbouncer.ini. Placeholders stay in it: see fill_ini()."""
    routes = "\n".join(
        f"{r.name} = host={r.host} port={r.port} dbname={r.database}"
        + (f" user={r.user}" if r.user else "")
        for r in settings.routes
    )
    return f"""\
; db/pgbouncer.py renders this file. Change settings there.
[databases]
{routes}

[pgbouncer]
listen_addr = {",".join(settings.listen_addresses)}
listen_port = {settings.listen_port}
; Many clients may connect in the same moment. With the default of 128, some would wait for 1 s.
listen_backlog = 4096
{_render_socket(settings)}
auth_type = scram-sha-256
auth_file = {settings.auth_file}
admin_users = {settings.admin_user}

; A client holds a server connection for one transaction.
pool_mode = transaction
default_pool_size = {settings.default_pool_size}
max_db_connections = {settings.max_db_connections}
max_db_client_connections = {settings.max_db_client_connections}
max_client_conn = {settings.max_client_conn}
; With 0, a driver that prepares statements by itself can run another client's statement.
max_prepared_statements = {settings.max_prepared_statements}
{_render_reset(settings)}\
{_render_ignored(settings)}\

; A client that waits longer than this for a server connection gets an error.
query_wait_timeout = {settings.query_wait_timeout_seconds}
; A client that is idle in a transaction keeps a server connection from others. This limit is
; shorter, so an idle transaction ends before the clients that wait for it are refused.
idle_transaction_timeout = {settings.idle_transaction_timeout_seconds}
client_login_timeout = {settings.client_login_timeout_seconds}
; With the default of 15 s, every failover would take at least 15 s.
server_login_retry = {settings.server_login_retry_seconds}
; A failover gives the host name another address. The resolver may return the old address for 5 s,
; which is the lifetime of RDS's records. PgBouncer keeps an address for dns_max_ttl after that.
dns_max_ttl = 1
dns_nxdomain_ttl = 1
; A dead host sends no reply. A new connection to it fails after 5 s, an open connection after 30 s.
; The 30 s hold for clients too. A client that does not read its result for 30 s is disconnected.
server_connect_timeout = 5
tcp_user_timeout = 30000
; Keepalives must come more often than the load balancer's idle timeout of 350 s.
tcp_keepalive = 1
tcp_keepidle = 15
tcp_keepintvl = 5
tcp_keepcnt = 3
{_render_tls(settings)}
; The statistics in the log are averages only. On AWS, db/pgbouncer_report.py reports more.
log_stats = 0
{_render_log(settings)}"""


def _render_reset(settings: PgBouncerSettings) -> str:
    if not settings.is_session_reset:
        return ""
    return f"""\
; After each transaction the server connection is as if new. Without this, the next client gets the
; settings, temporary tables and locks that the last client left.
server_reset_query = {SESSION_RESET}
server_reset_query_always = 1
"""


def _render_ignored(settings: PgBouncerSettings) -> str:
    lines = [
        "; PgBouncer refuses parameters that it does not know. The JDBC driver sends this one "
        "at login.",
        "ignore_startup_parameters = extra_float_digits",
    ]
    if settings.is_search_path_ignored:
        lines[1:1] = [
            "; This version accepts search_path, and would lose it after the first transaction."
        ]
        lines[-1] += ", search_path"
    return "\n".join(lines) + "\n"


def _render_log(settings: PgBouncerSettings) -> str:
    if settings.is_each_connection_logged:
        return ""
    return """\
; With these, each health check of ECS and each login of a client would write into the log. Refused
; clients and failed logins are written all the same, as "pooler error".
log_connections = 0
log_disconnections = 0
"""


def _render_socket(settings: PgBouncerSettings) -> str:
    lines = [f"unix_socket_dir = {settings.socket_folder}".rstrip()]
    if settings.socket_folder:
        lines.append("unix_socket_mode = 0700")
    return "\n".join(lines)


def _render_tls(settings: PgBouncerSettings) -> str:
    lines: list[str] = []
    if settings.server_authorities:
        lines += [
            "",
            "; A server's certificate must be for its host name and from one of these authorities.",
            "server_tls_sslmode = verify-full",
            f"server_tls_ca_file = {settings.server_authorities}",
        ]
    if settings.certificate:
        lines += [
            "",
            f"client_tls_sslmode = {'require' if settings.is_client_tls_required else 'allow'}",
            f"client_tls_cert_file = {settings.certificate}",
            f"client_tls_key_file = {settings.key}",
            "; Clients present no certificate. PgBouncer requires this file even so.",
            f"client_tls_ca_file = {settings.certificate}",
        ]
    return "\n".join(lines) + ("\n" if lines else "")


def fill_ini(ini: str, values: Mapping[str, str]) -> str:
    """The ini with every placeholder replaced by the value of its name.

    Raises ValueError for a placeholder that is not known, and for a value that is empty or that
    would change the meaning of pgbouncer.ini.
    """

    def fill(mark: re.Match[str]) -> str:
        name = mark[1]
        _check(name in _FILLED, "a placeholder", mark[0], f"use one of {', '.join(_FILLED)}")
        value = values.get(name, "")
        if not value:
            raise ValueError(f"{name} is empty: the task definition must give it")
        is_right, remedy = _FILLED[name]
        if not is_right(value):
            raise ValueError(f"{name} is {value!r}; {remedy}")
        return value

    return _MARK.sub(fill, ini)


def render_auth_file(logins: tuple[Login, ...], server: ServerLogin | None = None) -> str:
    """The whole auth file. Give it mode 0600: it holds verifiers and may hold a password."""
    users = [login.user for login in (*logins, *([server] if server else []))]
    _check(len(set(users)) == len(users), "auth file users", users, "name each user once")
    lines = [f'"{login.user}" "{login.verifier}"' for login in logins]
    if server:
        # A quote inside a value is doubled.
        lines.append(f'"{server.user}" "{server.password.replace(chr(34), chr(34) * 2)}"')
    return "".join(f"{line}\n" for line in lines)
