# This project's flake, with the stand-ins in place of nixpkgs.
let
  nixpkgs = {
    lib = import ./lib.nix;
    legacyPackages = nixpkgs.lib.genAttrs [
      "x86_64-linux"
      "aarch64-linux"
    ] (system: import ./pkgs.nix { inherit system; });
  };
  flake = import ../../../flake.nix;
  self = flake.outputs { inherit self nixpkgs; };
in
self
