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

  # A container's /proc has mounts of lxcfs, so the kernel allows no other, which Nix's sandbox needs.
  # Then Nix builds without it: the guest is for one job.
  nix.settings.sandbox-fallback = true;
}
