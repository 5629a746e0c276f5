#!/usr/bin/env bash
# Runs a command beside the linters: lint_beside.sh LINT -- COMMAND...
#
# LINT is one word that the shell splits. What it says is shown in one piece: at once where it fails, else nothing of
# it. The end says which of both failed; the exit status is not zero where either did.
set -uo pipefail

lint=$1
shift 2
said=$(mktemp)
trap 'rm -f "$said"' EXIT
(
  if $lint >"$said" 2>&1; then
    exit 0
  fi
  printf '\n%s\n%s\n' "== $lint FAILED:" "$(cat "$said")"
  exit 1
) &
beside=$!
"$@"
tests=$?
wait "$beside"
linted=$?
[ "$linted" = 0 ] || printf '%s\n' "== $lint FAILED; what it said stands above" >&2
[ "$tests" = 0 ] || printf '%s\n' "== the tests FAILED" >&2
[ "$linted" = 0 ] && [ "$tests" = 0 ]
