#!/usr/bin/env bash
# require.sh PROGRAM… makes sure that the programs are there. On Debian, root
# gets the missing ones installed; anybody else is told what to install.
set -euo pipefail
PATH=$PATH:/usr/local/sbin:/usr/sbin

# package names the Debian packages of a program. Go and Node.js come from their
# own sites: Debian's are often too old.
package() {
  case $1 in
    redis-server | nginx | chromium | curl | git | python3) echo "$1" ;;
    php) echo php-cli ;;
    clamd) echo clamav-daemon ;;
    python3-jwt) echo python3-jwt python3-cryptography ;;
    nchan) echo libnginx-mod-nchan ;;
    python3-websockets) echo python3-websockets ;;
    libwebsockets) echo libwebsockets-dev gcc libc6-dev ;;
    *) echo "" ;;
  esac
}

# present PROGRAM tells whether it is there. python3-… is none, but a module of
# the system's own Python, which need not be the first one in PATH; nchan is a
# module of nginx, libwebsockets a library of C.
present() {
  case $1 in
    python3-jwt) /usr/bin/python3 -c 'import cryptography, jwt' 2>/dev/null ;;
    python3-websockets) /usr/bin/python3 -c 'import websockets' 2>/dev/null ;;
    libwebsockets) command -v cc >/dev/null && echo '#include <libwebsockets.h>' | cc -E - >/dev/null 2>&1 ;;
    nchan) [ -e /usr/lib/nginx/modules/ngx_nchan_module.so ] ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

packages=() manual=()
for program in "$@"; do
  present "$program" && continue
  read -ra names <<<"$(package "$program")"
  if [ ${#names[@]} -gt 0 ]; then packages+=("${names[@]}"); else manual+=("$program"); fi
done

if [ ${#manual[@]} -gt 0 ]; then
  echo "missing: ${manual[*]} (see 'What you need' in CONTRIBUTING.md)" >&2
  exit 1
fi
if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing; on Debian: sudo apt-get install ${packages[*]}" >&2
    exit 1
  fi
  echo "installing ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # Servers belong to the tests: none may start with the machine.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
  fi
  apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

for program in "$@"; do
  case $program in
    go) go list -m >/dev/null ;; # says so itself where the toolchain is too old
    node)
      command -v npm >/dev/null || { echo "missing: npm" >&2; exit 1; }
      node -e 'process.exit(parseInt(process.versions.node, 10) >= 20 ? 0 : 1)' ||
        { echo "Node.js 20 or newer is needed, this is $(node --version)" >&2; exit 1; } ;;
  esac
done
