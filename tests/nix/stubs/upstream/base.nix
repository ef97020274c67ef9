# What nixpkgs sets on every system, as far as nix/ reads it or must get along with it.
{ lib, pkgs, ... }:

{
  options.system = {
    stateVersion = lib.mkOption { type = lib.types.str; };
    nixos.release = lib.mkOption {
      type = lib.types.str;
      default = lib.trivial.release;
    };
  };

  config = {
    services.openssh.enable = lib.mkDefault false;

    virtualisation.incus.clientPackage = pkgs.incus.client;
    boot.kernel.sysctl = {
      "fs.inotify.max_user_instances" = lib.mkOverride 1050 1048576;
      "kernel.keys.maxkeys" = lib.mkDefault 2000;
      "kernel.keys.maxbytes" = lib.mkDefault 2000000;
    };
  };
}
