"""Airflow: plans, writes the parts of the plan as mapped tasks, and commits. Set the four constants."""

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

STORE = "/shared/store"
OPTIONS = "--recipe fma-large --metadata /shared/fma_metadata.zip --audio /shared/fma_large"
PARTS = 16
RETRIES = 3


@task
def parts():
    """Returns the environment of each part. It is stored with the run: tasks that are cleared later, after PARTS was
    changed, write the same parts."""
    return [{"PART": f"{part}/{PARTS}"} for part in range(1, PARTS + 1)]


with DAG("wavemill", schedule=None):
    # The last line of a command's output, which is the plan's id, is the value of its task.
    plan = BashOperator(task_id="plan", bash_command=f"wavemill plan --store {STORE} {OPTIONS}")
    work = BashOperator.partial(
        task_id="work",
        bash_command=f"wavemill work --store {STORE} --plan {plan.output} --part $PART",
        append_env=True,
        retries=RETRIES,
        retry_delay=timedelta(seconds=30),
    ).expand(env=parts())
    commit = BashOperator(task_id="commit", bash_command=f"wavemill commit --store {STORE} --plan {plan.output}")
    plan >> work >> commit
