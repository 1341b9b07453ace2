# A duration of a pod, as behaviour.parse reads durations: drawn from what its UID and the seed make of chance, so that it
# is the same again. Words between @ are filled in by kwok.py.
def number: explode | reduce .[] as $digit (0; . * 16 + (if $digit > 96 then $digit - 87 else $digit - 48 end));
def chance: ((number + @seed@) % 16777216) / 16777216;
def seconds($u; $v):
  capture("^(?<kind>[a-z]*)[(]?(?<numbers>[-+.,0-9e]+)[)]?$")
  | .kind as $kind
  | (.numbers | split(",") | map(tonumber))
  | if $kind == "uniform" then .[0] + (.[1] - .[0]) * $u
    elif $kind == "exponential" then -.[0] * (1 - $u | log)
    elif $kind == "lognormal" then (.[0] + .[1] * (-2 * (1 - $u | log) | sqrt) * (6.283185307179586 * $v | cos) | exp)
    else .[0] end;
(.metadata.uid | gsub("-"; "")) as $uid
| (@most@ // 86400) as $most
| (.metadata.annotations["@annotation@"] // "@text@" | gsub(" "; ""))
| [seconds($uid[@u@] | chance; $uid[@v@] | chance), $most, 86400]
| min * 1000 | floor | tostring + "ms"
