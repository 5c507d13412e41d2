"""The folders of this checkout that git does not hold."""

from db.migrations import PROJECT

DEFAULT_HOME = PROJECT / ".local" / "dev"  # the development database
TOOLS = PROJECT / ".local" / "tools"  # what was built or fetched for this project
LOGS = PROJECT / ".local" / "logs"  # the output of builds and downloads
CACHE = PROJECT / ".local" / "cache"  # downloads that may be needed again; make clean removes it
