# What both image modules of nixpkgs bring, and a pikaci guest must be rid of.
{ lib, pkgs, ... }:

{
  users.users.root.initialHashedPassword = lib.mkOverride 150 "";
  services.getty.helpLine = "Log in as root.";
  services.openssh.enable = lib.mkDefault true;
  services.openssh.startWhenNeeded = lib.mkDefault true;
  documentation.enable = lib.mkOverride 890 true;
  system.build.metadata = pkgs.writeText "metadata-of-nixpkgs" "";
}
