# NixOS module that makes a NixOS image a pikaci guest. vm.nix and container.nix combine it with the
# image modules of nixpkgs; docs/guest-contract.md is the contract that it keeps.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  contract = import ../contract.nix;
  guest = import ./packages.nix pkgs;

  # Talks to the host over /dev/incus/sock. In a VM Incus's agent creates that socket, maybe late.
  service =
    name:
    {
      description,
      text,
      restartSecs,
    }:
    {
      inherit description;
      wantedBy = [ "multi-user.target" ];
      after = [ "incus-agent.service" ];
      path = [
        pkgs.coreutils
        pkgs.curl
      ];
      startLimitIntervalSec = 0;
      serviceConfig = {
        ExecStart = "${pkgs.writeTextFile {
          inherit name text;
          executable = true;
        }}";
        Restart = "on-failure";
        RestartSec = restartSecs;
      };
    };
in
{
  # systemPackages puts our programs into /run/current-system/sw/bin, where the host looks.
  environment.systemPackages = [
    (pkgs.callPackage ./run.nix { })
    (pkgs.writeTextFile {
      name = "pikaci-egress";
      text = contract.egressText;
      executable = true;
      destination = "/bin/pikaci-egress";
    })
  ]
  ++ guest.tools;

  # Most scripts of jobs begin with #!/bin/bash.
  systemd.tmpfiles.rules = [ "L+ /bin/bash - - - - ${lib.getExe pkgs.bash}" ] ++ contract.tmpfilesRules;

  systemd.services = lib.mapAttrs service {
    pikaci-ready = {
      description = "Announce that this guest is ready for a job";
      text = contract.readyText;
      restartSecs = 1;
    };
    pikaci-deadline = {
      description = "Stop this guest at its deadline";
      text = contract.deadlineText;
      restartSecs = 10;
    };
  };

  users.users.${contract.user.name} = {
    isNormalUser = true;
    inherit (contract.user) uid group home;
  };
  users.groups.${contract.user.group}.gid = contract.user.gid;

  # The only way in is `incus exec`: remove the image modules' empty root password, the console's
  # advice to use it, and sshd.
  users.users.root.initialHashedPassword = "!";
  services.getty.helpLine = lib.mkForce "";
  services.openssh.enable = false;

  # Most guests have no network device, and so nothing to wait for.
  networking = {
    useDHCP = false;
    dhcpcd.enable = false;
  };
  systemd.network = {
    enable = true;
    networks."50-incus" = {
      matchConfig.Name = "enp5s0 eth0"; # a VM's, a container's
      networkConfig.DHCP = "ipv4";
      linkConfig.RequiredForOnline = "routable";
    };
  };

  nix.settings.experimental-features = [
    "nix-command"
    "flakes"
  ];

  # A guest runs one job, and is never upgraded.
  nix.channel.enable = false;
  documentation.enable = lib.mkForce false;
  system.stateVersion = config.system.nixos.release;
}
