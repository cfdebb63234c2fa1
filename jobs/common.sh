# What the scripts in this folder have in common; each reads it after it has gone to the project's folder.

SITE="${BDQM_SITE:-jobs/site.toml}"

say() {
    echo "$(date '+%F %T') $*"
}

die() {
    say "error: $*" >&2
    exit 1
}

# The settings of site.toml as variables: `bdqm-tune submit` hands them over with the job. For a script that was submitted by
# hand, the same code reads them, by the Python of the environment that was active then, or of .venv.
read_site() {
    [ -z "${BDQM_ENVIRONMENT:-}" ] || return 0
    local python lines
    for python in python .venv/bin/python; do
        if "$python" -c 'import bdqm_tune' 2> /dev/null; then
            lines="$("$python" -m bdqm_tune services site "$SITE")" || die "cannot read $SITE"
            eval "$lines"
            return
        fi
    done
    die "no Python with bdqm_tune to read $SITE: 'bdqm-tune submit' needs none here. By hand: activate the environment before" \
        "sbatch (qsub -V), or set BDQM_ENVIRONMENT, and BDQM_MODULES where modules are needed"
}

# One of them: `setting environment`.
setting() {
    local name="BDQM_${1^^}"
    read_site
    echo "${!name:-}"
}

# A command of the site's own, in this shell: such use variables that are not set, and commands that fail.
run_as_is() {
    local options="$-" status command=("$@")
    set +eu
    set -- # as a file that is read here would take these for its own
    "${command[@]}"
    status=$?
    case "$options" in *u*) set -u ;; esac
    case "$options" in *e*) set -e ;; esac
    return "$status"
}

# The command `module`, which login shells have; profile scripts define it for others.
find_module() {
    local profile
    for profile in /etc/profile.d/{lmod,z00_lmod,modules,z01_modules}.sh; do
        command -v module > /dev/null && return
        [ ! -r "$profile" ] || run_as_is . "$profile" || say "$profile ends with status $?"
    done
    command -v module > /dev/null
}

# The environment of Python, on a node that has none yet.
activate() {
    read_site
    local modules="${BDQM_MODULES:-}" environment="$BDQM_ENVIRONMENT"
    if [ -n "$modules" ]; then
        find_module || die "no command 'module' on $(hostname): 'modules' in $SITE is for clusters that have it"
        # shellcheck disable=SC2086 # several names, separated by blanks
        run_as_is module load $modules || die "'module load $modules' failed: see 'modules' in $SITE, and 'module avail'"
    fi
    if [ -f "$environment/bin/activate" ]; then
        run_as_is . "$environment/bin/activate" || die "$environment/bin/activate failed: 'make setup' makes .venv again"
    elif command -v conda > /dev/null; then
        run_as_is eval "$(conda shell.bash hook)"
        run_as_is conda activate "$environment" || die "no environment '$environment': see 'environment' in $SITE, and 'conda env list'"
    else
        die "no environment '$environment' in $PWD: 'make setup' makes .venv; else see 'environment' in $SITE"
    fi
    command -v mlflow > /dev/null || die "no command 'mlflow' in the environment '$environment': 'make setup' installs it"
}

# Stop unless the node has a GPU that works, or the parameters ask for the CPU.
check_gpu() {
    local found
    case " $* " in *" device=cpu "*) return ;; esac
    found="$(nvidia-smi -L 2>&1)" || found="nvidia-smi failed: $found"
    case "$found" in
    "GPU "*) say "GPU: $found" ;;
    *) die "no usable GPU on $(hostname) ($found). A job asks for one by --gres (PBS: -l nodes=1:gpus=1), which 'gpu' in" \
        "$SITE does; -P device=cpu tunes on the CPU" ;;
    esac
}

# Whether the user has other stores than those of the servers.
has_own_stores() {
    [ -n "${BDQM_STORAGE:-}" ] && [ -n "${MLFLOW_TRACKING_URI:-}" ]
}

# Wait for the servers, half an hour at most, and let `mlflow` find them; no longer than until the warning or the end.
find_servers() {
    local variables deadline=$((SECONDS + 1800))
    has_own_stores && return
    until variables="$(python -m bdqm_tune services env)"; do
        [ $SECONDS -lt $deadline ] || die "no servers for half an hour: jobs/servers.sbatch or jobs/servers.pbs runs them"
        sleep 10 &
        wait $! || true # so that a signal is heard at once
        [ -z "$warned$ended" ] || return 0
    done
    eval "$variables"
}

# Hear the signals from now on: the warning that the time is nearly over (USR1), and the end (TERM), which a scheduler
# sends to all processes of a job.
listen() {
    warned='' ended='' child=''
    warn_child() { :; }
    trap 'warned=yes; warn_child &' USR1
    trap 'ended=yes' TERM
}

# Run a command in the background, in a process group of its own, and give its exit status, whatever signals come
# meanwhile. Nothing is begun once the time is over.
run() {
    local status=0
    [ -z "$warned$ended" ] || return 0
    set -m
    "$@" &
    child=$!
    set +m
    while :; do
        status=0
        wait "$child" || status=$?
        kill -0 "$child" 2> /dev/null || break
    done
    return "$status"
}

# Signal the Python process of a worker, which `mlflow run` has started through a shell: neither of those, as the one would
# die and the other mark its run as failed. Status 1 if there is none (yet).
signal_worker() {
    local pid found=1
    for pid in $(pgrep --pgroup "$child" --full '^[^ ]*python[^ ]* -m bdqm_tune tune'); do
        if [ "$1" != USR1 ] || hears_warning "$pid"; then
            kill "-$1" "$pid" 2> /dev/null && found=0
        fi
    done
    return "$found"
}

# Whether a process handles USR1, of which it would die otherwise: Python takes a moment until it does.
hears_warning() {
    local caught
    caught="$(sed -n 's/^SigCgt:[^0-9a-f]*//p' "/proc/$1/status" 2> /dev/null)"
    [ -z "$caught" ] || ((16#${caught: -4} & 16#200))
}

# `mlflow run` with these arguments. The warning goes to the worker, which hands its trials back. The end reaches all: mlflow
# dies of it, and the worker is waited for.
run_worker() {
    local status=0
    warn_child() {
        local second
        until signal_worker USR1; do # mlflow is about to start it, or it does not listen yet
            sleep 0.5
            kill -0 "$child" 2> /dev/null || return 0
        done
        while signal_worker 0; do
            sleep 0.5
        done
        for second in {1..20}; do # mlflow would wait for minutes for servers that have moved
            sleep 1
            kill -0 "$child" 2> /dev/null || return 0
        done
        kill "$child"
    }
    run mlflow run . --env-manager local "$@" || status=$?
    while [ -n "$child" ] && signal_worker 0; do
        sleep 0.2
    done
    return "$status"
}

# Whether trials of the study wait or run, so that a successor has something to do; so too where the servers are away.
is_unfinished() {
    local counts status=0
    has_own_stores || python -m bdqm_tune services env > /dev/null || return 0
    counts="$(python -m bdqm_tune status "$1" --json)" || status=$?
    case "$status" in
    0) python -c 'import json, sys; sys.exit(not sum(json.loads(sys.argv[1])[key] for key in ("waiting", "running")))' "$counts" ;;
    2) return 1 ;; # no such study
    143) sleep 1 ;; # the scheduler ended it, and this script may hear of that a moment later
    esac
}

# The value of `-P NAME=…` among the arguments, the last one, else the second argument.
parameter() {
    local name="$1" value="$2" argument
    shift 2
    for argument in "$@"; do
        case "$argument" in "$name="* | "-P$name="*) value="${argument#*=}" ;; esac
    done
    echo "$value"
}

# Both servers, until the warning or the end.
run_servers() {
    warn_child() {
        kill -TERM "$child"
    }
    run python -m bdqm_tune services up --host "$(hostname)" --foreground
}

# Send this shell the warning that Slurm would send, as PBS has none.
warn_before_end() {
    read_site
    local part seconds=0 parts
    IFS=: read -ra parts <<< "$1"
    for part in "${parts[@]}"; do
        seconds=$((60 * seconds + 10#$part))
    done
    seconds=$((seconds - BDQM_WARNING))
    set -m # so that the `sleep` ends with it
    { sleep "$((seconds > 0 ? seconds : 0))" && kill -USR1 $$; } &
    set +m
    trap "kill -- -$! 2> /dev/null || true" EXIT
}

# Submit the job that goes on after this one.
successor() {
    local command="${BDQM_SUCCESSOR:-qsub -V $1}" job="${PBS_JOBID:-${SLURM_ARRAY_JOB_ID:-${SLURM_JOB_ID:-}}}" output
    say "the time is over: $command"
    output="$(eval "$command")" || die "no successor; by hand, in $PWD: BDQM_SUBMISSION=${BDQM_SUBMISSION:-} $command"
    echo "$output"
    python -m bdqm_tune services succeeded "$job" "$output" || say "'bdqm-tune jobs' does not know of the successor"
}
