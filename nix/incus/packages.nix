# The programs and libraries in a NixOS guest: add or remove them here.
pkgs: {
  # On PATH. `cc` is gcc, not clang.
  tools = with pkgs; [
    bash
    binutils
    cacert
    cargo
    (lib.lowPrio clang)
    clippy
    coreutils
    curl
    diffutils
    file
    findutils
    gawk
    (lib.hiPrio gcc)
    git
    gnugrep
    gnumake
    gnupatch
    gnused
    gnutar
    gzip
    iproute2
    jq
    nix
    nodejs
    openssl
    pkg-config-unwrapped # the wrapped one finds libraries only in Nix builds
    postgresql
    procps
    python3
    rustc
    rustfmt
    unzip
    util-linux
    which
    xz
    zstd
  ];

  # Found by pkg-config.
  libraries = with pkgs; [
    libpq
    openssl
    sqlite
    zlib
  ];
}
