# The VM image. It boots with security.secureboot=false.
{
  lib,
  modulesPath,
  pkgs,
  ...
}:

{
  imports = [
    "${modulesPath}/virtualisation/incus-virtual-machine.nix"
    ./guest.nix
  ];

  system.installer.channel.enable = false;
  system.build.metadata = lib.mkForce (
    pkgs.callPackage ./metadata.nix {
      kind = "VM";
      requirements.secureboot = "false";
    }
  );

  boot.loader.timeout = 0;

  # Jobs run below the agent. Neither must a job that runs out of memory kill the agent, nor a
  # restart of the agent the jobs.
  systemd.services.incus-agent.serviceConfig = {
    KillMode = "process";
    OOMPolicy = "continue";
    TasksMax = "infinity";
  };
}
