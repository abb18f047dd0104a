"""Programs whose command line does not say what they will do: by name, each group with its reason.

Rules: a name that is here makes its line ``ssh:opaque``, with whatever arguments, since telling the harmless uses of an
interpreter from the others takes its own parser. A version behind a name (``python3.11``, ``vim.tiny``) changes
nothing. ``find`` alone is judged by its arguments: its expressions are whole words, without abbreviations, so those
that run or write something are known by name.

What it does not do: know what a program *is*. A copy of a shell under another name is not found here, so that what
permits by name is sound only where the account cannot write what the name finds; a list of what is forbidden never is.

Source: the manual pages of the programs; the classes of https://gtfobins.github.io (shell, command, file).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

_SHELLS: Final = """ash bash busybox csh dash elvish fish ksh ksh93 lksh mksh nu oksh osh pdksh posh powershell pwsh
rbash rc rksh rzsh sash sh tcsh toybox xonsh yash zsh"""
# Also words of shell languages: a keyword takes no part of the line as an argument, and ``printf -v`` or ``test`` may
# compute an array's index, which may hold a substitution although it stood in quotes.
_SHELL_WORDS: Final = """alias and begin bind break builtin case command compgen complete continue coproc declare do
done elif else enable end esac eval exec exit export fc fi for foreach function functions getopts goto hash history if
in let local logout mapfile nocorrect noglob not or popd printf pushd read readarray readonly repeat return select set
setenv setopt shift shopt source switch test then time trap typeset ulimit unalias unset until vared wait while zle
zmodload"""
_INTERPRETERS: Final = """ack amber as awk bc bun cargo cc clang clisp cmake cpan cpp cscript dart dc deno dotnet
elixir emacs emacsclient erl escript expect expectk gawk gcc gdb gem ghc ghci gmake gnuplot go groovy gsed guile iex
ipython irb java jrunscript jshell julia jupyter kotlin kotlinc latex ld lldb ltrace lua luajit m4 make mawk maxima
mono nawk nim ninja node nodejs npm npx ocaml octave openssl original-awk pdflatex perl php phpdbg pip pipx pnpm
poetry pry pypy python R racket rails rake Rscript ruby runghc rustc sbcl scala sed swipl tcc tclsh tex ts-node tsx uv
uvx valgrind wish yarn"""
_STARTERS: Final = """abduco at batch bwrap byobu capsh chpst chroot chrt chsh cpulimit crontab dbus-run-session
dbus-send dialog doas dtach dumb-init entr env envdir fakeroot fd fdfind firejail flock gosu incrontab inotifywait
ionice ip ld-linux ld.so linux32 linux64 login logrotate logsave lxc-attach machinectl mount newgrp nice nohup nsenter
numactl parallel pexec pkexec proxychains rlwrap run-mailcap run-parts runcon runscript runuser s6-setuidgid schedtool
screen script setarch setlock setpriv setsid setuidgid sg socat softlimit ssh-agent start-stop-daemon stdbuf strace su
sudo sudoedit sudoreplay systemd-inhibit systemd-nspawn systemd-run taskset tcpserver timeout tmux torify torsocks
unbuffer unshare update-alternatives uscan vigr vipw visudo watch xargs xterm xvfb-run"""
_ELSEWHERE: Final = """ansible ansible-playbook autossh aws az buildah cfengine chef-client crictl ctr dbclient docker
docker-compose gcloud helm kubectl lxc mosh nc ncat nerdctl netcat oc pdsh podman podman-compose puppet rlogin rsh
rsync runc salt salt-call scp sftp slogin ssh ssh-copy-id sshfs sshpass telnet terraform vagrant virsh"""
_CLIENTS: Final = """beeline bq clickhouse clickhouse-client consul cqlsh debugfs duckdb ed etcdctl fdisk ftp gdisk
hive impala-shell influx ip6tables-restore iptables-restore isql ldapadd ldapdelete ldapmodify lftp mariadb mongo
mongosh mycli mysql mysqlimport mysqlsh nft nsupdate osql parted pg_restore pgcli presto psql redis-cli sfdisk
smbclient sqlcmd sqlite sqlite3 sqlline sqlplus tftp trino usql valkey-cli vault"""
_EDITORS: Final = """atop bzless bzmore editor elinks ex helix hexedit htop hx jed joe kak less lf links lynx lzless
man mc mcedit mcview micro more most mutt nano ncdu neovim nnn nvim pager perldoc pico pinfo ranger rnano rview rvim
sensible-editor sensible-pager top vi view vifm vim vimdiff w3m xzless zile zless zmore"""
_HOOKS: Final = """ag apt apt-get aptitude ar aria2c borg bsdtar bzr cpio csplit curl cvs dhclient diff3 dnf dpkg
exiftool ffmpeg git git-shell gpg gpg2 hg install ldd mail mailx nmap pacman patch pax pkg psftp restic rg rpm
rpmbuild rpmquery sdiff sort split ssh-add ssh-keygen svn tar tcpdump tdbtool tshark unzip wget wireshark yum zip
zsync zypper"""

_GROUPS: Final[Mapping[str, str]] = {
    "it is a shell": _SHELLS,
    "it is a word of the shell's own language": _SHELL_WORDS,
    "it reads a program from its arguments, a file or its input": _INTERPRETERS,
    "it starts what its arguments name": _STARTERS,
    "it acts on another machine or container": _ELSEWHERE,
    "it reads statements from its input or a file": _CLIENTS,
    "it takes commands from the keyboard, and can start others": _EDITORS,
    "its options or settings name other programs to run": _HOOKS,
}
_REASONS: Final[Mapping[str, str]] = {name: reason for reason, names in _GROUPS.items() for name in names.split()}
# With a terminal these show what they say in a pager, which takes commands from the keyboard.
_PAGED_NAMES: Final = """busctl coredumpctl dmesg homectl hostnamectl journalctl localectl loginctl networkctl oomctl
portablectl resolvectl systemctl systemd-analyze systemd-cgls timedatectl userdbctl"""
_PAGED: Final = frozenset(_PAGED_NAMES.split())
_PAGES: Final = "with a terminal it starts a pager, which takes commands from the keyboard"
# Everything in find's expressions that runs, removes or writes, and what reads names from a file.
_FIND_ACTIONS: Final = frozenset(
    {"-delete", "-exec", "-execdir", "-files0-from", "-fls", "-fprint", "-fprint0", "-fprintf", "-ok", "-okdir"}
)
_VERSION: Final = re.compile(r"(?P<name>.*?[A-Za-z])[-.]?[0-9][0-9.]*(?:-[0-9]+)?\Z")


def why_not_read(program: str, arguments: tuple[str, ...], *, terminal: bool) -> str:
    """Return why the line does not say what ``program`` (without its folder) will do; empty where it does. Pure."""
    for name in _spellings(program):
        if name in _REASONS:
            return _REASONS[name]
        if terminal and name in _PAGED:
            return _PAGES
        if name == "find" and not _FIND_ACTIONS.isdisjoint(arguments):
            return "its expression runs, removes or writes something"
    return ""


def _spellings(program: str) -> Iterator[str]:
    """Yield the name, without its version, and without what Debian's alternatives put behind a dot or before a dash
    (``x86_64-linux-gnu-gcc-12``)."""
    yield program
    found = _VERSION.match(program)
    plain = found["name"] if found is not None else program
    yield plain
    yield plain.partition(".")[0]
    yield plain.rpartition("-")[2]
