"""AWS Lambda: a SAM template and a Dockerfile for the data plane alone; engines, ledger and lake are elsewhere."""

from __future__ import annotations

from typing import Final

from noria.apps.manifests.plan import Plan, project_file
from noria.apps.manifests.written import as_yaml, header
from noria.errors import Invalid
from noria.settings import Settings

LAKE: Final = "/mnt/lake"
"""Where the function has the EFS file system that holds the lake; functions see such folders below /mnt only."""
PYTHON_IMAGE: Final = "public.ecr.aws/lambda/python:3.11.2025.06.19.11"


def files(settings: Settings, memory_mb: int, seconds: int, command: str) -> dict[str, str]:
    """Name to text; raises Invalid for engines that noria would launch, and for a ledger in a file."""
    for name, engine in settings.engines.items():
        if engine.url is None:
            raise Invalid(
                f"engine '{name}' is launched by noria, and a function only attaches", "url = the engine's address",
                where=settings.place("engines", name),
            )  # fmt: skip
    if settings.runtime.ledger.startswith("sqlite"):
        raise Invalid(
            "a ledger in a file cannot be shared by functions", 'ledger = "postgresql+psycopg://noria@HOST:5432/noria"',
            where=settings.place("runtime", "ledger"),
        )  # fmt: skip
    text = project_file(Plan(settings, ("cpu",)), False, "127.0.0.1:8000", "127.0.0.1:8001", None)
    keys = sorted({engine.key for engine in settings.engines.values() if engine.key})
    head = header(command, ["sam build && sam deploy --guided"])
    return {
        "template.yaml": head + as_yaml(_template(settings.project.name, memory_mb, seconds, keys)),
        "Dockerfile": head + _dockerfile(),
        "noria.toml": text.replace('lake = "./lake"', f'lake = "{LAKE}"'),
    }


def _template(project: str, memory_mb: int, seconds: int, keys: list[str]) -> dict[str, object]:
    def secret(key: str) -> str:
        return f"{{{{resolve:secretsmanager:noria:SecretString:{key}}}}}"

    variables: dict[str, object] = {
        "NORIA_ADMIN_KEY": secret("admin-key"),
        "NORIA_PSEUDONYMS": secret("pseudonyms"),
        "PGPASSWORD": secret("postgres-password"),
    }
    variables |= {key: secret(key) for key in keys}
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Transform": "AWS::Serverless-2016-10-31",
        "Description": f"The data plane of noria for {project}",
        "Parameters": {
            "Subnets": {"Type": "List<AWS::EC2::Subnet::Id>"},
            "SecurityGroups": {"Type": "List<AWS::EC2::SecurityGroup::Id>"},
            "LakeAccessPoint": {"Type": "String", "Description": "ARN of the EFS access point of the lake"},
        },
        "Resources": {
            "Gateway": {
                "Type": "AWS::Serverless::Function",
                "Metadata": {"Dockerfile": "Dockerfile", "DockerContext": ".", "DockerTag": "noria"},
                "Properties": {
                    "PackageType": "Image",
                    "MemorySize": memory_mb,
                    "Timeout": seconds,
                    "Environment": {"Variables": variables},
                    "VpcConfig": {"SubnetIds": {"Ref": "Subnets"}, "SecurityGroupIds": {"Ref": "SecurityGroups"}},
                    "FileSystemConfigs": [{"Arn": {"Ref": "LakeAccessPoint"}, "LocalMountPath": LAKE}],
                    # noria checks its own keys.
                    "FunctionUrlConfig": {"AuthType": "NONE", "InvokeMode": "BUFFERED"},
                },
            }
        },
        "Outputs": {"Url": {"Value": {"Fn::GetAtt": ["GatewayUrl", "FunctionUrl"]}}},
    }


def _dockerfile() -> str:
    return (
        "# The wheel of noria lies beside this file: pip wheel --no-deps -w . PATH-OF-NORIA, and its constraints.txt.\n"
        f"FROM {PYTHON_IMAGE}\n"
        "COPY constraints.txt noria-*.whl /tmp/\n"
        'RUN pip install --no-cache-dir -c /tmp/constraints.txt "$(ls /tmp/noria-*.whl)[lambda,postgres]"\n'
        "COPY noria.toml ${LAMBDA_TASK_ROOT}/\n"
        'CMD ["noria.apps.lambda_handler.handler"]\n'
    )
