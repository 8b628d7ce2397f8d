"""What a test must not depend on: the variables and signals that pytest was started with."""
import os
import resource
import signal

PREFIXES = ("USERSTATE_", "SSL_CERT", "OPENSSL_", "GIT_", "LC_", "PYTHON", "LANG")


def forget():
    """Make variables, signals and limits those of any other shell."""
    for name in list(os.environ):
        if name.startswith(PREFIXES):
            del os.environ[name]
    os.environ.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    os.environ.setdefault("HOME", "/")
    for number in range(1, signal.NSIG):
        ignored_by_python = number in (signal.SIGPIPE, signal.SIGXFSZ)
        if signal.getsignal(number) == signal.SIG_IGN and not ignored_by_python:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # pytest was started by `&`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
