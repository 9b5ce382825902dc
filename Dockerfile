# Reckon for CUDA cards: docker build -t reckon . && docker run --gpus all -v "$PWD:/work" reckon train CONFIG
#
# It is linted, and has not been built by us: there was neither a card nor a network to pull images where it was written.
ARG CUDA=12.6.3
FROM nvidia/cuda:${CUDA}-devel-ubuntu22.04 AS build
ARG RUST=1.89.0
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Versions of the distribution's packages are those of the image's release.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends build-essential ca-certificates curl \
    && rm -rf /var/lib/apt/lists/*
RUN curl --proto '=https' --tlsv1.2 -fsS https://sh.rustup.rs \
    | sh -s -- -y --profile minimal --default-toolchain "${RUST}"
ENV PATH=/root/.cargo/bin:$PATH
WORKDIR /src
COPY . .
RUN cargo build --release --locked --features cuda --bin reckon && strip target/release/reckon

# The runtime image has cuBLAS, which is loaded when it is needed; the driver comes from the host.
FROM nvidia/cuda:${CUDA}-runtime-ubuntu22.04
# Verifiers in Python, and programs that are judged in the sandbox.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* && useradd --uid 1000 --create-home reckon
COPY --from=build /src/target/release/reckon /usr/local/bin/reckon
COPY --from=build /src/examples /usr/share/reckon/examples
USER 1000
WORKDIR /work
ENTRYPOINT ["reckon"]
CMD ["doctor"]
