# An image with wavemill, its trainer and the demo's program, for machines with AVX2:
#
#     docker build --tag wavemill . && docker run --rm wavemill
#     docker run --rm --volume "$PWD:/work" --workdir /work --user "$(id -u)" wavemill wavemill info --store store
FROM rust:1.94-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ make python3 python3-venv
WORKDIR /wavemill
# libtorch is a layer of its own: changes of the sources do not download it again.
COPY scripts/libtorch.sh scripts/lib.sh scripts/wheels.sha256 scripts/
RUN scripts/libtorch.sh
COPY . .
RUN scripts/build.sh -p demo-audio -p wavemill-trainer && scripts/release.sh licences /licences

FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* && useradd --create-home wavemill
COPY --from=build /wavemill/.libtorch/torch/lib /opt/wavemill/lib
COPY --from=build /licences /opt/wavemill/licences
COPY --from=build /wavemill/target/v3/dist/wavemill /wavemill/target/v3/dist/wavemill-train \
    /wavemill/target/v3/dist/demo-audio /wavemill/target/v3/dist/wavemill.cdx.json /opt/wavemill/bin/
ENV PATH=/opt/wavemill/bin:$PATH LD_LIBRARY_PATH=/opt/wavemill/lib
USER wavemill
WORKDIR /home/wavemill
CMD ["wavemill", "demo", "--train"]
