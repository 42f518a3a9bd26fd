FROM python:3.12-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY gddim_cli gddim_cli
COPY checkpoints checkpoints
RUN pip install --no-cache-dir .
WORKDIR /work
ENTRYPOINT ["gddim"]
CMD ["--help"]
