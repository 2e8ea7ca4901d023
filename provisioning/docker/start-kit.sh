#!/bin/sh
# Starts the mounted kit in the foreground; with arguments, runs those instead:
#   docker run --rm -v KIT:/kit mmar-fl mmar site setup /kit
# As compose.yaml does, mount a kit that is started with its startup/ and local/ read-only:
#   docker run -v KIT:/kit -v KIT/startup:/kit/startup:ro -v KIT/local:/kit/local:ro mmar-fl
set -eu
if [ "$#" -gt 0 ]; then
  exec "$@"
fi
kit="${MMAR_KIT_FOLDER:-/kit}"
if [ ! -f "$kit/startup/sub_start.sh" ]; then
  echo "start-kit: $kit is no kit of a site or a server; mount one there: -v KIT:$kit" >&2
  exit 2
fi
if [ ! -w "$kit" ]; then
  echo "start-kit: user $(id -u) cannot write to $kit, where runs and logs are kept;" \
    "run the container as the owner of the kit: --user UID:GID" >&2
  exit 2
fi
for part in startup local; do
  if [ -w "$kit/$part" ]; then
    echo "start-kit: jobs could change $kit/$part; mount it read-only:" \
      "-v KIT/$part:$kit/$part:ro" >&2
  fi
done
exec bash "$kit/startup/sub_start.sh" --once
