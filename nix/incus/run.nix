# The runner for a NixOS guest. The file itself stays the one that the tests run: NixOS has no
# /bin/bash for its first line, and its tools are elsewhere, so a wrapper starts it.
{
  lib,
  pkgs,
  bash,
  writeShellApplication,
  writeTextFile,
}:

let
  contract = import ../contract.nix;
  guest = import ./packages.nix pkgs;

  runner = writeTextFile {
    name = "pikaci-incus-run";
    text = contract.runnerText;
    executable = true;
  };
in
writeShellApplication {
  name = baseNameOf contract.runner;
  runtimeInputs = with pkgs; [
    bash
    coreutils
    findutils
    gnugrep
    util-linux
  ];
  # The runner passes on what it does not set, so a job's build scripts find the libraries.
  runtimeEnv.PKG_CONFIG_PATH = lib.makeSearchPathOutput "dev" "lib/pkgconfig" guest.libraries;
  text = ''
    exec ${lib.getExe bash} ${runner} "$@"
  '';
  passthru = { inherit runner; };
}
