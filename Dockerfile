# docker build --build-arg VERSION=$(git describe --tags --always --dirty) -t minigate .

FROM node:20-bookworm-slim AS web
WORKDIR /src/web
COPY web/package.json web/package-lock.json web/.npmrc ./
COPY web/console/package.json console/
COPY web/sdk/package.json sdk/
COPY web/e2e/package.json e2e/
RUN npm ci --ignore-scripts
COPY web/ ./
RUN npm run build

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
COPY --from=web /src/web/console/dist web/console/dist
ARG VERSION=unknown
# 'make binary' is the build that the tests check to be static.
RUN make binary OUT=/out/minigate VERSION="$VERSION" && mkdir /out/data

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/minigate /minigate
COPY --from=build --chown=nonroot:nonroot /out/data /data
# The configuration's directory for everything kept on this machine.
ENV MINIGATE_DATA=/data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s CMD ["/minigate", "healthcheck"]
ENTRYPOINT ["/minigate"]
CMD ["serve", "--config", "/etc/minigate/minigate.yaml"]
