# The guest module, booted: does it keep the guest contract? guest.py asks.
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
