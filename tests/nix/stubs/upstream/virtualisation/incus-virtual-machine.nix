{ pkgs, ... }:

{
  imports = [ ./common.nix ];

  system.build.qemuImage = pkgs.writeText "nixos.qcow2" "";
  boot.loader.systemd-boot.enable = true;
}
