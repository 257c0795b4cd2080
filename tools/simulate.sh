#!/bin/sh
# Random runs from a seed on, for so many minutes. Without a seed: one that no earlier run of this had, of the commit and the time.
set -eu
seed=$1 minutes=$2
if [ -z "$seed" ]; then
    commit=$(git rev-parse --short=7 HEAD 2>/dev/null || echo 0)
    seed=$(((0x$commit << 20) + $(date +%s) % (1 << 20)))
fi
printf '%-9s %s\n' simulate "seeds from $seed on, both workloads, $minutes minutes"
exec .venv/bin/totora simulate --seeds "$seed:" --minutes "$minutes"
