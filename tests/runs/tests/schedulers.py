"""Stand-ins for schedulers: run the files of `examples/` with the commands and environment variables of the scheduler.

usage: schedulers.py slurm|kubernetes|airflow|parallel WAVEMILL STORE OPTION…

Tasks run one after the other, the last one first. The options are those of `wavemill plan`. Two of Slurm's, Kubernetes'
and Airflow's tasks are lost at first, and repeated.
"""

import os
import re
import subprocess
import sys
import tempfile
import types
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
JOB_ID = "77"
LOST = [7, 12]


def run(command, **variables):
    """Runs a command, prints nothing but its errors, and returns its output."""
    env = os.environ | {name: str(value) for name, value in variables.items()}
    return subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def sbatch(words):
    """Runs a script or an array of tasks, as `sbatch` would, and prints the job's id."""
    variables, script, tasks = {}, None, [1]
    while words:
        word = words.pop(0)
        if word.startswith("--export=ALL,"):
            variables = dict(pair.split("=", 1) for pair in word.removeprefix("--export=ALL,").split(","))
        elif word.startswith("--dependency="):
            assert word == f"--dependency=afterok:{JOB_ID}", word
            if "LOST" in os.environ:
                return
        elif word == "--array=7,12":
            tasks = [7, 12]
        elif word.startswith("--array=1-"):
            tasks = range(1, int(word.removeprefix("--array=1-")) + 1)
        elif word == "--wrap":
            script = ["bash", "-c", words.pop(0)]
        elif word not in ("--parsable", "--kill-on-invalid-dep=yes"):
            script = ["bash", word]

    text = Path(script[1]).read_text() if script[1] != "-c" else ""
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)", text, re.MULTILINE))
    for task in reversed(tasks):
        if task in LOST and "LOST" in os.environ:
            continue
        run(
            script,
            SLURM_ARRAY_TASK_ID=task,
            SLURM_ARRAY_TASK_COUNT=len(tasks),
            SLURM_CPUS_PER_TASK=directives.get("cpus-per-task", 1),
            **variables,
        )
    print(JOB_ID)


def slurm(store, options):
    """Submits the array, and then repeats the tasks that were lost with the commands that were printed."""
    words = [EXAMPLES / "slurm/submit.sh", store, *options]
    submitted = subprocess.run(words, env=os.environ | {"LOST": ""}, check=True, stderr=subprocess.PIPE, text=True)
    again, commit = submitted.stderr.splitlines()[-2:]
    run(["bash", "-c", again])
    run(["bash", "-c", commit])


def parallel(words):
    """Runs a command once for each argument after `:::`, as GNU parallel would."""
    end = words.index(":::")
    command, arguments = words[:end], words[end + 1 :]
    is_quoted = "--quote" in command
    command = [word for word in command if word != "--quote"]
    while command[0].startswith("--"):
        command = command[2:]
    for argument in reversed(arguments):
        one = [word.replace("{}", argument) for word in command]
        # Without the option, a shell splits the words again.
        run(one if is_quoted else ["sh", "-c", " ".join(one)])


def kubernetes(store, options):
    """Runs the container of the indexed Job once for each index."""
    text = (EXAMPLES / "kubernetes.yaml").read_text()
    [(indent, script)] = re.findall(r"- \|\n( +)(.*?)\n +resources:", text, re.DOTALL)
    script = script.replace("\n" + indent, "\n")
    completions = int(re.search(r"completions: (\d+)", text)[1])
    parts = re.search(r'name: PARTS\n +value: "(\d+)"', text)[1]

    plan = run(["wavemill", "plan", "--store", store, *options])
    variables = {"STORE": store, "PLAN": plan, "PARTS": parts}
    for index in reversed(range(completions)):
        if index + 1 not in LOST:
            run(["/bin/sh", "-c", script], JOB_COMPLETION_INDEX=index, REPEAT="", **variables)
    for index in range(len(LOST)):
        run(["/bin/sh", "-c", script], JOB_COMPLETION_INDEX=index, REPEAT=" ".join(map(str, LOST)), **variables)
    run(["wavemill", "commit", "--store", store, "--plan", plan])


class BashOperator:
    """Runs its command at once; `output` is the last line."""

    def __init__(self, *, task_id, bash_command, env=None, append_env=False, retries=0, retry_delay=None):
        assert env is None or append_env
        self.output = run(["bash", "-c", bash_command], **(env or {})).rpartition("\n")[2]

    @classmethod
    def partial(cls, **arguments):
        def expand(env):
            env = list(env)
            for place, each in reversed(list(enumerate(env, 1))):
                if place not in LOST:
                    cls(env=each, **arguments)
            # The number of parts is stored with the run: tasks may be cleared after the file was changed.
            assert all(each["PART"].endswith("/16") for each in env), env
            return [cls(env=env[place - 1], **arguments) for place in LOST][0]

        return types.SimpleNamespace(expand=expand)

    def __rshift__(self, other):
        return other


class DAG:
    def __init__(self, name, schedule):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def airflow(store, options):
    """Executes the DAG's file with stand-ins for Airflow's classes."""
    for name, content in [
        ("airflow", {}),
        ("airflow.sdk", {"DAG": DAG, "task": lambda function: function}),
        ("airflow.providers", {}),
        ("airflow.providers.standard", {}),
        ("airflow.providers.standard.operators", {}),
        ("airflow.providers.standard.operators.bash", {"BashOperator": BashOperator}),
    ]:
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(content)

    text = (EXAMPLES / "airflow_dag.py").read_text()
    text = re.sub("^STORE = .*", f"STORE = {store!r}", text, flags=re.MULTILINE)
    text = re.sub("^OPTIONS = .*", f"OPTIONS = {' '.join(options)!r}", text, flags=re.MULTILINE)
    exec(compile(text, "airflow_dag.py", "exec"), {})


def main():
    scheduler, wavemill, store, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(wavemill, f"{folder}/wavemill")
        for name in ["sbatch", "parallel"]:
            stand_in = Path(folder, name)
            stand_in.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} as-{name} "$@"\n')
            stand_in.chmod(0o755)
        os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"

        match scheduler:
            case "slurm":
                slurm(store, options)
            case "parallel":
                run([EXAMPLES / "parallel.sh", store, *options])
            case "kubernetes":
                kubernetes(store, options)
            case "airflow":
                airflow(store, options)


if __name__ == "__main__":
    match sys.argv[1]:
        case "as-sbatch":
            sbatch(sys.argv[2:])
        case "as-parallel":
            parallel(sys.argv[2:])
        case _:
            main()
