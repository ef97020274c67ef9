# The container image.
{
  lib,
  modulesPath,
  pkgs,
  ...
}:

{
  imports = [
    "${modulesPath}/virtualisation/lxc-container.nix"
    ./guest.nix
  ];

  system.installer.channel.enable = false;
  system.build.metadata = lib.mkForce (pkgs.callPackage ./metadata.nix { kind = "container"; });

  networking.useHostResolvConf = false;
}
