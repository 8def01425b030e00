# The one program, for every process of compose.yaml.
FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked -p bulkhead

FROM debian:bookworm-slim
COPY --from=build /source/target/release/bulkhead /usr/local/bin/bulkhead
RUN useradd --uid 10001 --create-home --home-dir /var/lib/bulkhead bulkhead \
    && install -d -o bulkhead -g bulkhead -m 700 /var/lib/bulkhead/data /var/lib/bulkhead/keys
USER bulkhead
WORKDIR /var/lib/bulkhead
ENTRYPOINT ["bulkhead"]
