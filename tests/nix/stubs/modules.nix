# NixOS's modules in small: imports, options with defaults and types, mkIf, mkOverride; lists are
# joined, sets merged, and two different values of one priority are an error. What no module
# declares is merged all the same, as its options are nixpkgs's.
{
  modules,
  specialArgs ? { },
  system ? "x86_64-linux",
}:

let
  lib = import ./lib.nix;
  pkgs = import ./pkgs.nix { inherit system; };
  inherit (builtins)
    attrNames
    concatLists
    concatMap
    filter
    foldl'
    head
    isAttrs
    isList
    listToAttrs
    tail
    ;

  arguments = {
    inherit config lib pkgs;
    utils = import ./utils.nix { inherit lib; };
    modulesPath = toString ./upstream;
  }
  // specialArgs;

  load =
    module:
    let
      value = if builtins.isPath module || builtins.isString module then import module else module;
      body = if builtins.isFunction value then value arguments else value;
      whole = body ? config || body ? options;
    in
    concatMap load (body.imports or [ ])
    ++ [
      {
        options = body.options or { };
        config = if whole then body.config or { } else removeAttrs body [ "imports" ];
      }
    ];

  loaded = concatMap load ([ ./upstream/base.nix ] ++ modules);

  kindOf = value: if isAttrs value then value._type or "" else "";
  isSet = value: isAttrs value && kindOf value == "" && value.type or "" != "derivation";

  # The attributes of a definition, with what stands around it put around each of them.
  attributes =
    definition:
    if kindOf definition == "if" then
      builtins.mapAttrs (_: lib.mkIf definition.condition) (attributes definition.content)
    else if kindOf definition == "override" then
      builtins.mapAttrs (_: lib.mkOverride definition.priority) (attributes definition.content)
    else
      definition;

  # [{ priority, value }]; nothing where a condition does not hold.
  discharged =
    priority: definition:
    if kindOf definition == "if" then
      if definition.condition then discharged priority definition.content else [ ]
    else if kindOf definition == "override" then
      discharged definition.priority definition.content
    else
      [
        {
          inherit priority;
          value = definition;
        }
      ];

  # The values that count: those of the strongest priority.
  strongest =
    definitions:
    let
      all = concatMap (discharged 100) definitions;
      best = foldl' (least: one: if one.priority < least then one.priority else least) 9999 all;
    in
    map (one: one.value) (filter (one: one.priority == best) all);

  merged =
    path: values:
    if builtins.all isSet values then
      let
        names = attrNames (foldl' (all: one: all // one) { } values);
        definitions = name: concatMap (value: if value ? ${name} then [ value.${name} ] else [ ]) values;
        defined = filter (name: strongest (definitions name) != [ ]) names;
      in
      lib.genAttrs defined (name: merged "${path}.${name}" (strongest (definitions name)))
    else if builtins.all isList values then
      concatLists values
    else if builtins.all (value: value == head values) (tail values) then
      head values
    else
      throw "conflicting definitions of ${path}";

  optionValue =
    path: option: definitions:
    let
      values = strongest definitions;
      value = if values == [ ] then option.default or (throw "${path} has no value") else merged path values;
    in
    if option.type.check value then value else throw "${path} is no ${option.type.name}";

  level =
    path: options: definitions:
    let
      sets = map attributes definitions;
      names = attrNames (foldl' (all: one: all // one) options sets);
      of = name: concatMap (set: if set ? ${name} then [ set.${name} ] else [ ]) sets;
      resolve =
        name:
        let
          here = "${path}${name}";
          option = options.${name} or null;
        in
        if kindOf option == "option" then
          optionValue here option (of name)
        else if option != null then
          level "${here}." option (of name)
        else
          merged here (strongest (of name));
    in
    lib.genAttrs names resolve;

  config = level "" (foldl' lib.recursiveUpdate { } (map (module: module.options) loaded)) (
    map (module: module.config) loaded
  );
in
{
  inherit config;
}
