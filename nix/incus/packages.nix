# What jobs find in a NixOS guest: here is the place to add or to leave out.
pkgs: {
  # On PATH. `cc` is gcc's, where clang has one too.
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
    pkg-config-unwrapped # the wrapped one looks for libraries in builds of Nix alone
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
