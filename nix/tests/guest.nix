# Boots the guest module; guest.py checks that it keeps the guest contract.
{
  name = "pikaci-guest";

  nodes.guest = {
    imports = [ ../incus/guest.nix ];

    virtualisation.memorySize = 2048;
  };

  testScript = ''
    CONTRACT = "${../guest/contract.json}"
    RUNNER = "${../guest/pikaci-incus-run}"
  ''
  + builtins.readFile ./guest.py;
}
