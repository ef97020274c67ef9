# NixOS module: what makes a NixOS image a pikaci guest. Import it beside the Incus image module of
# nixpkgs (virtualisation/lxc-container.nix or virtualisation/incus-virtual-machine.nix).
{ pkgs, ... }:

let
  contract = import ./contract.nix;

  runner = pkgs.writeTextFile {
    name = "pikaci-incus-run";
    text = contract.runnerText;
    executable = true;
    destination = "/bin/pikaci-incus-run";
  };

  deadline = pkgs.writeTextFile {
    name = "pikaci-deadline";
    text = contract.deadlineText;
    executable = true;
  };
in
{
  # With systemPackages the runner stands at /run/current-system/sw/bin, where the host looks.
  environment.systemPackages = [
    runner
    pkgs.bash
    pkgs.cacert
    pkgs.coreutils
    pkgs.findutils
    pkgs.gnutar
    pkgs.util-linux
  ];

  # The runner says #!/bin/bash, as the tests run it.
  systemd.tmpfiles.rules = [ "L+ /bin/bash - - - - ${pkgs.bash}/bin/bash" ] ++ contract.tmpfilesRules;

  # In a VM the socket that it reads appears with Incus's agent, and may be late.
  systemd.services.pikaci-deadline = {
    description = "End this guest at its deadline";
    wantedBy = [ "multi-user.target" ];
    after = [ "incus-agent.service" ];
    path = [
      pkgs.coreutils
      pkgs.curl
    ];
    serviceConfig = {
      ExecStart = "${deadline}";
      Restart = "on-failure";
      RestartSec = 10;
    };
    startLimitIntervalSec = 0;
  };

  users.users.${contract.user.name} = {
    isNormalUser = true;
    inherit (contract.user) uid group home;
  };
  users.groups.${contract.user.group}.gid = contract.user.gid;
}
