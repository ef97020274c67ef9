{
  description = "pikaci: CI jobs in throw-away Incus instances";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;

      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];

      forAllSystems = outputs: lib.genAttrs systems (system: outputs nixpkgs.legacyPackages.${system});

      image =
        kind: system:
        lib.nixosSystem {
          modules = [
            ./nix/incus/${kind}.nix
            { nixpkgs.hostPlatform = system; }
          ];
        };

      # The files of this kind of image that Incus imports.
      built = kind: system: self.nixosConfigurations."incus-${kind}-${system}".config.system.build;
    in
    {
      nixosModules = {
        default = ./nix/host.nix;
        guest = ./nix/incus/guest.nix;
        incus-vm = ./nix/incus/vm.nix;
        incus-container = ./nix/incus/container.nix;
      };

      nixosConfigurations = lib.mergeAttrsList (
        map (system: {
          "incus-vm-${system}" = image "vm" system;
          "incus-container-${system}" = image "container" system;
        }) systems
      );

      packages = forAllSystems (
        pkgs:
        let
          inherit (pkgs.stdenv.hostPlatform) system;
        in
        rec {
          default = pikaci;
          pikaci = pkgs.callPackage ./nix/package.nix { };
          incus-run = pkgs.callPackage ./nix/incus/run.nix { };
          incus-vm-image = (built "vm" system).qemuImage;
          incus-vm-metadata = (built "vm" system).metadata;
          incus-container-image = (built "container" system).squashfs;
          incus-container-metadata = (built "container" system).metadata;
        }
      );

      checks = forAllSystems (
        pkgs:
        let
          ours = self.packages.${pkgs.stdenv.hostPlatform.system};
        in
        {
          inherit (ours) pikaci incus-run;
          shellcheck = pkgs.callPackage ./nix/tests/shellcheck.nix { };
          runner = pkgs.testers.runNixOSTest ./nix/tests/runner.nix;
          guest = pkgs.testers.runNixOSTest ./nix/tests/guest.nix;
          host = pkgs.testers.runNixOSTest ./nix/tests/host.nix;
        }
      );

      devShells = forAllSystems (pkgs: {
        default = pkgs.callPackage ./nix/shell.nix {
          inherit (self.packages.${pkgs.stdenv.hostPlatform.system}) pikaci;
        };
      });

      apps = forAllSystems (
        pkgs:
        let
          inherit (self.packages.${pkgs.stdenv.hostPlatform.system}) pikaci;
        in
        {
          default = {
            type = "app";
            program = lib.getExe pikaci;
            meta = { inherit (pikaci.meta) description; };
          };
        }
      );

      formatter = forAllSystems (pkgs: pkgs.nixfmt-tree);
    };
}
