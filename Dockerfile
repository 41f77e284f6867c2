# syntax=docker/dockerfile:1
# srucli for a CPU. Its kernels are compiled while the image is built; a container needs one folder
# that can be written, and neither network nor a home. `srucli help containers` says how to use it.
FROM python:3.13-slim

# The index of torch for a CPU alone, as PyTorch's page "Start Locally" gives it. Without it, pip
# installs torch with CUDA, which takes gigabytes.
ARG TORCH_INDEX=
COPY constraints.txt /tmp/
RUN python -m pip install --no-cache-dir --constraint /tmp/constraints.txt \
    ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch

COPY pyproject.toml README.md LICENSE MANIFEST.in /tmp/srucli/
COPY srucli /tmp/srucli/srucli
RUN python -m pip install --no-cache-dir --constraint /tmp/constraints.txt '/tmp/srucli[zst]' \
    && rm -r /tmp/srucli /tmp/constraints.txt

# Compile the kernels: without a folder of its own, Numba keeps them beside the code.
RUN cd "$(mktemp -d)" \
    && python -c "for n in range(300): print(f'ab'[n % 2], f'word{n % 7} of a text {n % 11}', sep='\t')" >a.tsv \
    && cut -f 2 a.tsv >a.txt \
    && srucli train a.tsv --raw a.txt -o run --epochs 1 \
    && srucli predict run a.txt >/dev/null \
    && srucli train a.tsv -o other --epochs 1 -c fasttext tokenizer.model_type=bpe model.ngrams=true \
    && rm -r "$PWD"

USER 1000:1000
WORKDIR /data
ENTRYPOINT ["srucli"]
CMD ["--help"]
