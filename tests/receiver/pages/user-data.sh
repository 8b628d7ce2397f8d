#!/bin/sh
PROGRAM=http://files.example.com/userstate.py
SHA256=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
export USERSTATE_METADATA_URL=http://metadata.example.com/metadata

set -e
userstate=${TMPDIR:-/run}/userstate.py
python=$(command -v python3 || echo /usr/libexec/platform-python)

fetch() {
  if command -v curl > /dev/null; then
    timeout 30 curl -fsSL -o "$userstate" "$PROGRAM"
  elif command -v wget > /dev/null; then
    timeout 30 wget -q -O "$userstate" "$PROGRAM"
  else
    timeout 30 "$python" -I -c 'import sys, urllib.request as web
open(sys.argv[1], "wb").write(web.urlopen(sys.argv[2]).read())' "$userstate" "$PROGRAM"
  fi
}

usable() {
  command -v "$python" > /dev/null || return
  for pause in 0 1 2 4 8; do
    sleep "$pause"
    if fetch && echo "$SHA256  $userstate" | sha256sum -c > /dev/null; then
      program -n running 1000 "user-data" > /dev/null
      return
    fi
  done
  return 1
}

program() { "$python" -I "$userstate" "$@"; }

report() {  # STATE CODE MESSAGE: never fails
  [ -z "$userstate" ] || program "$@" || true
}

step() {  # CODE MESSAGE COMMAND...: the status is that of the command
  if [ -n "$userstate" ]; then
    program run "$@"
  else
    shift 2
    [ "$1" != -- ] || shift
    "$@"
  fi
}

if usable; then
  # Each event would wait 150 s for a service that is dead: wait a minute, once.
  { USERSTATE_URL=$(program --deadline 60 url) && export USERSTATE_URL &&
    program --deadline 60 running 1000 "user-data"; } || export USERSTATE_DEADLINE=5
else
  echo "no Python 3, or no userstate.py: going on without reports" >&2
  userstate=
fi
trap 'report "$?" 1000 "user-data"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

step 1010 "prepare" mkdir -p /srv/app
step 1020 "install" sh -c "echo no such package >&2; exit 100"
step 1030 "not reached, as the step above fails" true
