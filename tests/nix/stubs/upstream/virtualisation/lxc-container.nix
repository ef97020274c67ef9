{ pkgs, ... }:

{
  imports = [ ./common.nix ];

  boot.isContainer = true;
  system.build.squashfs = pkgs.writeText "nixos-lxc-image" "";
}
