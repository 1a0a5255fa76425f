#!/usr/bin/env bash
# Looks at repositories of make.sh as apt and dnf do, without installing anything:
#
#   packaging/repo/check.sh DIR
set -euo pipefail

dir=$(cd "${1:?usage: check.sh DIR}" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# apt: lists are fetched and their signature checked, in a state of their own.
mkdir -p "$tmp"/{etc/sources.list.d,etc/preferences.d,lists/partial,cache/archives/partial}
touch "$tmp/status"
sed "s#^Signed-By:.*#Signed-By: $dir/gpuhost.asc#" "$dir/apt/gpuhost.sources" >"$tmp/etc/sources.list.d/gpuhost.sources"
options=(-o "Dir::Etc=$tmp/etc" -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$tmp/etc/sources.list.d"
	-o "Dir::State::Lists=$tmp/lists" -o "Dir::State::Status=$tmp/status" -o "Dir::Cache=$tmp/cache" -o APT::Sandbox::User=root)
apt-get -qq "${options[@]}" -o APT::Update::Error-Mode=any update
for package in gpuhost gpuhost-runtime; do
	seen=$(apt-cache "${options[@]}" policy "$package")
	grep -q 'Candidate: [0-9]' <<<"$seen" || { echo "error: apt does not see $package" >&2 && exit 1; }
done

# dnf: the metadata's signature, each package's, and that the metadata names them.
export GNUPGHOME=$tmp/gnupg
mkdir -m 700 "$GNUPGHOME"
gpg --batch --quiet --import "$dir/gpuhost.asc"
gpg --batch --quiet --verify "$dir/rpm/repodata/repomd.xml.asc" "$dir/rpm/repodata/repomd.xml" 2>/dev/null
rpm --dbpath "$tmp/rpm" --import "$dir/gpuhost.asc"
named=$(zcat "$dir"/rpm/repodata/*-primary.xml.gz)
for file in "$dir"/rpm/*.rpm; do
	seen=$(rpm --dbpath "$tmp/rpm" -K "$file")
	grep -q 'digests signatures OK' <<<"$seen" || { echo "error: $file is not signed" >&2 && exit 1; }
	grep -q "${file##*/}" <<<"$named" || { echo "error: the metadata lack $file" >&2 && exit 1; }
done
gpgconf --kill gpg-agent
echo "apt and dnf accept $dir"
