# NixOS module: a host of pikaci. Incus with what pikaci wants in it, and `pikaci serve` on it.
# The unit is that of docs/pikaci.service; docs/nixos.md has an example.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.pikaci;

  pikaci = lib.getExe cfg.package;
  directory = "/var/lib/pikaci";
  runtimeDirectory = "/run/pikaci";

  # Whoever may use incus-admin is as good as root, whatever stands here. This bounds what a bug of
  # the service itself can do.
  sandbox = {
    User = cfg.user;
    Group = cfg.group;
    SupplementaryGroups = "incus-admin";
    StateDirectory = "pikaci";
    StateDirectoryMode = "0700";
    WorkingDirectory = directory;
    UMask = "0077";

    NoNewPrivileges = true;
    CapabilityBoundingSet = "";
    ProtectSystem = "strict";
    ProtectHome = "read-only";
    PrivateTmp = true;
    PrivateDevices = true;
    ProtectProc = "invisible";
    ProtectClock = true;
    ProtectControlGroups = true;
    ProtectHostname = true;
    ProtectKernelLogs = true;
    ProtectKernelModules = true;
    ProtectKernelTunables = true;
    LockPersonality = true;
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RemoveIPC = true;
    SystemCallArchitectures = "native";
    SystemCallFilter = "@system-service";
    SystemCallErrorNumber = "EPERM";
    RestrictAddressFamilies = "AF_UNIX";
  };

  # What every command of pikaci's here has in common.
  unit = {
    after = [
      "incus.service"
      "incus-preseed.service"
    ];
    wants = [ "incus.service" ];
    path = [
      config.virtualisation.incus.clientPackage
      pkgs.git
    ];
    environment.XDG_STATE_HOME = "/var/lib";
  };

  flags = lib.concatLists (
    lib.mapAttrsToList
      (
        name: value:
        lib.optionals (value != null) [
          "--${name}"
          (toString value)
        ]
      )
      {
        state-root = "${directory}/root";
        inherit (cfg)
          workspace
          jobs
          cpus
          memory
          socket
          listen
          ;
        token-file = if cfg.listen == null then null else "%d/token";
      }
    ++ map (place: [
      "--allow-mounts"
      place
    ]) cfg.allowMounts
  );

  positive =
    description:
    lib.mkOption {
      type = lib.types.nullOr lib.types.ints.positive;
      default = null;
      inherit description;
    };
in
{
  options.services.pikaci = {
    enable = lib.mkEnableOption "pikaci, which runs CI jobs in throw-away Incus instances";

    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The pikaci to run.";
    };

    user = lib.mkOption {
      type = lib.types.str;
      default = "pikaci";
      description = "Who the service runs as. It must be able to read the workspaces.";
    };

    group = lib.mkOption {
      type = lib.types.str;
      default = "pikaci";
      description = "The group that it runs as, beside incus-admin.";
    };

    workspace = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/srv/project";
      description = "The tree of jobs whose submitter names no other.";
    };

    jobs = positive "How many jobs run at once; by default one a processor, at most 4.";
    cpus = positive "How many processors jobs may have together; by default without a bound.";

    memory = lib.mkOption {
      type = lib.types.nullOr (lib.types.strMatching "[1-9][0-9]{0,6}(kB|MB|GB|TB|KiB|MiB|GiB|TiB)");
      default = null;
      example = "16GiB";
      description = "How much memory jobs may have together; by default without a bound.";
    };

    socket = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "${runtimeDirectory}/service.sock";
      description = ''
        Where it listens: below ${runtimeDirectory} or ${directory}; by default
        ${directory}/root/service.sock. The socket is the user's alone.
      '';
    };

    listen = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "127.0.0.1:8443";
      description = "A TCP address to listen on too, without TLS. It needs a token.";
    };

    tokenFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/run/secrets/pikaci-token";
      description = "A file with the token that clients on TCP must send; for root alone, not in the store.";
    };

    allowMounts = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "/nix/store" ];
      description = "Directories of the host below which jobs may mount; none by default.";
    };

    images = lib.mkOption {
      type = lib.types.attrsOf (lib.types.listOf lib.types.path);
      default = { };
      example = lib.literalExpression ''
        {
          "pikaci/dev" = [
            "''${metadata}/metadata.tar.xz"
            "''${image}/nixos.qcow2"
          ];
        }
      '';
      description = ''
        Guest images by their aliases, each with the files that `pikaci image import` takes. They
        are imported before the service starts; one that is there already stays as it is.
      '';
    };

    poolSize = lib.mkOption {
      type = lib.types.str;
      default = "40GiB";
      description = "The size of the storage pool, a file of btrfs, that guests live in.";
    };

    reapAt = lib.mkOption {
      type = lib.types.str;
      default = "hourly";
      description = "When to delete instances that are past their deadlines; see systemd.time(7).";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = (cfg.listen == null) == (cfg.tokenFile == null);
        message = "services.pikaci.listen and services.pikaci.tokenFile want each other: whoever can submit a job reads what pikaci can read.";
      }
      {
        assertion =
          cfg.socket == null
          || lib.any (place: lib.hasPrefix "${place}/" cfg.socket) [
            directory
            runtimeDirectory
          ];
        message = "services.pikaci.socket must be below ${runtimeDirectory} or ${directory}: the service can write nowhere else.";
      }
    ];

    virtualisation.incus = {
      enable = true;
      # As `pikaci setup` makes them.
      preseed = {
        projects = [
          {
            name = "pikaci";
            config = {
              "features.images" = "true";
              "features.profiles" = "true";
            };
          }
        ];
        storage_pools = [
          {
            name = "pikaci";
            driver = "btrfs";
            config.size = cfg.poolSize;
          }
        ];
      };
    };

    # Incus's module asks for it where there is a firewall.
    networking.nftables.enable = lib.mkDefault true;

    # By itself the kernel allows some 16 guests that have an init system. Incus's own defaults are
    # higher for the first (priority 1050), and lower for the second (1000).
    boot.kernel.sysctl = {
      "fs.inotify.max_user_instances" = lib.mkOverride 1100 8192;
      "kernel.keys.maxkeys" = lib.mkOverride 900 20000;
      "kernel.keys.maxbytes" = lib.mkOverride 900 2000000;
    };

    users.users = lib.mkIf (cfg.user == "pikaci") {
      pikaci = {
        isSystemUser = true;
        inherit (cfg) group;
        extraGroups = [ "incus-admin" ];
      };
    };
    users.groups = lib.mkIf (cfg.group == "pikaci") { pikaci = { }; };

    environment.systemPackages = [ cfg.package ];

    systemd.services = {
      pikaci = unit // {
        description = "pikaci: CI jobs in throw-away Incus instances";
        wantedBy = [ "multi-user.target" ];
        after = unit.after ++ [
          "network.target"
          "pikaci-images.service"
        ];
        serviceConfig =
          sandbox
          // {
            Type = "notify";
            NotifyAccess = "main";
            ExecStart = "${pikaci} serve ${lib.escapeShellArgs flags}";
            # TERM goes to pikaci alone: its jobs go on in their guests, and are the next start's.
            KillMode = "mixed";
            TimeoutStopSec = 30;
            Restart = "on-failure";
            RestartSec = 2;
            # A wrong option, or a state root in use, is not cured by another start.
            RestartPreventExitStatus = 2;
            RuntimeDirectory = "pikaci";
            RuntimeDirectoryMode = "0700";
            # An open log or event stream is a descriptor; so is every incus command, four times.
            LimitNOFILE = 8192;
          }
          // lib.optionalAttrs (cfg.listen != null) {
            LoadCredential = "token:${toString cfg.tokenFile}";
            RestrictAddressFamilies = "AF_UNIX AF_INET AF_INET6";
          };
      };

      pikaci-images = lib.mkIf (cfg.images != { }) (
        unit
        // {
          description = "Import pikaci's guest images";
          wantedBy = [ "pikaci.service" ];
          serviceConfig = sandbox // {
            Type = "oneshot";
            RemainAfterExit = true;
            ExecStart = lib.mapAttrsToList (
              alias: files:
              "${pikaci} image import ${
                lib.escapeShellArgs (
                  [
                    "--alias"
                    alias
                  ]
                  ++ files
                )
              }"
            ) cfg.images;
          };
        }
      );

      # With a state root of its own: that of the service is held by it.
      pikaci-reap = unit // {
        description = "Delete instances of pikaci that are past their deadlines";
        startAt = cfg.reapAt;
        serviceConfig = sandbox // {
          Type = "oneshot";
          ExecStart = "${pikaci} reap --expired --state-root ${directory}/reaper";
        };
      };
    };
  };
}
