#!/usr/bin/env bash
# Installs the servers and other programs that the slow tests use: PostgreSQL with PostGIS, nginx,
# Git LFS and shells from Debian, and stac-fastapi with PgSTAC, rustac, the Git LFS server giftless
# and Jupyter's kernel in a virtual environment.
#
#     tests/servers/install.sh FOLDER
#     STAC_GITLAB_SERVERS_VENV=FOLDER python -m pytest -m slow
set -euo pipefail
venv=${1:?"usage: $0 FOLDER (of the virtual environment to create)"}

missing=()
[ -x /usr/lib/postgresql/15/bin/initdb ] || missing+=(postgresql-15)
[ -e /usr/share/postgresql/15/extension/postgis.control ] || missing+=(postgresql-15-postgis-3)
command -v nginx > /dev/null || missing+=(nginx-light)
command -v git-lfs > /dev/null || missing+=(git-lfs)
command -v openssl > /dev/null || missing+=(openssl)
command -v zsh > /dev/null || missing+=(zsh)
command -v fish > /dev/null || missing+=(fish)
if [ "${#missing[@]}" -gt 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check \
    'stac-fastapi.pgstac==7.2.0' 'pypgstac[psycopg]==0.10.0' 'uvicorn' 'rustac==0.9.18' \
    'stac-asset[cli]==0.4.8' 'distributed==2026.8.0'
# giftless states no requirements.
"$venv/bin/pip" install -q --disable-pip-version-check \
    'giftless==0.6.2' 'flask==3.1.3' flask-classful flask-marshmallow 'marshmallow<4' \
    marshmallow-enum webargs 'PyJWT<2.10' cryptography figcan cachetools python-dateutil python-dotenv \
    pyyaml typing_extensions
# For notebooks and Dask, which import the package itself from where the tests find it.
"$venv/bin/pip" install -q --disable-pip-version-check \
    'ipykernel==7.4.0' 'ipython==9.18.1' 'ipywidgets==8.1.9' 'nbclient==0.11.0' \
    'pystac>=1.15.1' 'requests>=2.32.4' 'tenacity>=9' 'tqdm>=4.66' 'urllib3>=2.6.3'
