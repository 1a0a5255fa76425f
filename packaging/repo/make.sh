#!/usr/bin/env bash
# Makes signed repositories, for apt and for dnf, of packages:
#
#   packaging/repo/make.sh PACKAGES DIR
#
#   DIR/gpuhost.asc                      the public key
#   DIR/apt  DIR/apt/gpuhost.sources     dists/stable, pool/main
#   DIR/rpm  DIR/rpm/gpuhost.repo        repodata, signed packages
#
# SIGNING_KEY names a key of yours (GNUPGHOME is honoured). Without it a key is made
# below build/, good for tests and for nothing else. BASE is the address that DIR will
# be reached at, file://DIR unless given.
set -euo pipefail

here=$(cd "$(dirname "$0")/../.." && pwd)
packages=$(cd "${1:?usage: make.sh PACKAGES DIR}" && pwd)
mkdir -p "${2:?usage: make.sh PACKAGES DIR}"
dir=$(cd "$2" && pwd)
base=${BASE:-file://$dir}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC

need() { command -v "$1" >/dev/null || { echo "error: $1 is missing" >&2 && echo "hint: apt-get install $2" >&2 && exit 1; }; }
need apt-ftparchive apt-utils
need createrepo_c createrepo-c
need gpg gnupg
need rpmsign rpm

# test_key makes the key of tests once and prints its name.
test_key() {
	export GNUPGHOME=$here/build/repo-key
	trap 'gpgconf --kill gpg-agent' EXIT
	if [[ ! -d $GNUPGHOME ]]; then
		mkdir -p "$GNUPGHOME"
		chmod 700 "$GNUPGHOME"
		gpg --batch --quiet --passphrase '' --quick-generate-key 'gpuhost tests only <tests@gpuhost.invalid>' rsa3072 sign never
	fi
}

if [[ -z ${SIGNING_KEY-} ]]; then
	test_key
	SIGNING_KEY=tests@gpuhost.invalid
fi
sign() { gpg --batch --yes --quiet --local-user "$SIGNING_KEY" "$@"; }

make_apt() {
	local arch lists=dists/stable/main
	mkdir -p "$dir/apt/pool/main"
	cp "$packages"/*.deb "$dir/apt/pool/main/"
	cd "$dir/apt"
	for arch in amd64 arm64; do
		mkdir -p $lists/binary-$arch
		apt-ftparchive --arch $arch packages pool/main >$lists/binary-$arch/Packages
		gzip -9nk $lists/binary-$arch/Packages
	done
	local about=(Origin=gpuhost Label=gpuhost Suite=stable Codename=stable Components=main
		'Architectures=amd64 arm64' "Date=$(date -u -R -d "@$SOURCE_DATE_EPOCH")") field options=()
	for field in "${about[@]}"; do
		options+=(-o "APT::FTPArchive::Release::$field")
	done
	apt-ftparchive "${options[@]}" release dists/stable >Release
	mv Release dists/stable/Release
	sign --clearsign --output dists/stable/InRelease dists/stable/Release
	sign --armor --detach-sign --output dists/stable/Release.gpg dists/stable/Release
	cat >gpuhost.sources <<-SOURCES
		Types: deb
		URIs: $base/apt
		Suites: stable
		Components: main
		Signed-By: /etc/apt/keyrings/gpuhost.asc
	SOURCES
}

make_rpm() {
	mkdir -p "$dir/rpm"
	cp "$packages"/*.rpm "$dir/rpm/"
	cd "$dir/rpm"
	# It asks for a terminal although the key has no passphrase.
	GPG_TTY=/dev/null rpmsign --define "__gpg $(command -v gpg)" --define "_gpg_name $SIGNING_KEY" --addsign ./*.rpm >/dev/null
	createrepo_c --quiet --no-database --revision "$SOURCE_DATE_EPOCH" --set-timestamp-to-revision .
	sign --armor --detach-sign --output repodata/repomd.xml.asc repodata/repomd.xml
	cat >gpuhost.repo <<-REPO
		[gpuhost]
		name=gpuhost
		baseurl=$base/rpm
		enabled=1
		gpgcheck=1
		repo_gpgcheck=1
		gpgkey=$base/gpuhost.asc
	REPO
}

rm -rf "$dir/apt" "$dir/rpm"
gpg --batch --armor --export "$SIGNING_KEY" >"$dir/gpuhost.asc"
make_apt
make_rpm
