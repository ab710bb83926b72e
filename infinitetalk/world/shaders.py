"""GLSL of the renderer. Colours are linear until the last line; paint is placed on the average body.

Software rasterizers run both sides of every branch, so each kind of surface has a program of its own: what they share,
and one `paint` each. Four numbers a vertex (`p`) mean what the kind says.
"""

VERTEX = """#version 330
in vec3 place; in vec3 normal; in vec3 canonical; in vec4 paint_; in vec2 kind_shade;
uniform mat4 view; uniform mat4 lens; uniform mat4 lamp_view; uniform int shells; uniform float depth;
out vec3 n; out vec3 can; out vec4 p; out vec3 at; out float kind; out float shade; out float shell; out vec3 lit;
void main() {
  shell = shells > 1 ? float(gl_InstanceID) / float(shells - 1) : 1.0;
  vec4 seen = view * vec4(place - normal * depth * (1.0 - shell), 1);
  at = seen.xyz; n = mat3(view) * normal; can = canonical; p = paint_; kind = kind_shade.x; shade = kind_shade.y;
  lit = (lamp_view * vec4(place + normal * 0.004, 1)).xyz * 0.5 + 0.5;
  gl_Position = lens * seen;
}"""

_SHARED = """#version 330
in vec3 n; in vec3 can; in vec4 p; in vec3 at; in float kind; in float shade; in float shell; in vec3 lit;
out vec4 colour;
uniform vec3 skin, lips, iris, hair, cloth0, cloth1; uniform vec3 lamp_way, lamp, room;
uniform vec3 eye, mouth; uniform float brows, stubble, pattern, fluff; uniform sampler2D shadow;
struct Look { vec3 base; float gloss; float sharp; float soft; float shade; };

float dice(vec3 q) { q = fract(q * 0.3183099 + 0.1) * 17.0; return fract(q.x * q.y * q.z * (q.x + q.y + q.z)); }
float noise(vec3 q) {
  vec3 i = floor(q), f = fract(q); f = f * f * (3.0 - 2.0 * f); vec2 o = vec2(0, 1);
  vec4 a = vec4(dice(i), dice(i + o.xxy), dice(i + o.xyx), dice(i + o.xyy));
  vec4 b = vec4(dice(i + o.yxx), dice(i + o.yxy), dice(i + o.yyx), dice(i + o.yyy));
  vec4 c = mix(a, b, f.x); vec2 d = mix(c.xy, c.zw, f.y); return mix(d.x, d.y, f.z);
}
float bump(vec2 q) { return exp(-dot(q, q)); }
float lamp_seen() {
  if (any(lessThan(lit.xy, vec2(0.0))) || any(greaterThan(lit.xy, vec2(1.0)))) return 1.0;
  float seen = 0.0;
  for (int i = 0; i < 4; i++) {
    vec2 o = (vec2(i & 1, i >> 1) - 0.5) * 0.006;
    seen += texture(shadow, lit.xy + o).r > lit.z - 0.004 ? 1.0 : 0.0;
  }
  return seen * 0.25;
}
"""

_SKIN = """
// p: lips, inside of the mouth, lids, degrees inside the hairline
Look paint(bool inside_out) {
  Look l = Look(skin, 0.16, 18.0, 1.0, shade);
  float ax = abs(can.x), front = step(can.y, -0.08);
  l.base *= 0.945 + 0.11 * noise(can * 210.0);
  float cheek = bump(vec2(ax - 0.047, can.z - mouth.z - 0.03) / vec2(0.024, 0.020));
  float tip = bump(vec2(ax, can.z - mouth.z - 0.035) / vec2(0.016, 0.012));
  l.base *= mix(vec3(1), vec3(1.06, 0.86, 0.84), front * (0.5 * cheek + 0.6 * tip));
  vec2 socket = vec2(ax - eye.x, can.z - eye.z + 0.004) / vec2(0.025, 0.016);
  l.base *= mix(vec3(1), vec3(0.86, 0.78, 0.78), 0.55 * front * exp(-pow(dot(socket, socket), 2.0)));
  float grain = noise(can * 900.0);
  float beard = smoothstep(mouth.z + 0.012, mouth.z - 0.022, can.z);
  beard += smoothstep(0.020, 0.004, abs(can.z - mouth.z - 0.017)) * smoothstep(0.038, 0.018, ax);
  beard = max(beard, smoothstep(0.052, 0.062, ax) * smoothstep(eye.z - 0.008, eye.z - 0.035, can.z));
  beard *= smoothstep(mouth.z - 0.095, mouth.z - 0.06, can.z) * smoothstep(-0.030, -0.055, can.y) * (1.0 - p.x);
  l.base *= mix(vec3(1), vec3(0.50, 0.47, 0.49), clamp(beard, 0.0, 1.0) * stubble * (0.55 + 0.45 * grain));
  float red = smoothstep(0.30, 0.72, p.x);
  l.base = mix(l.base, lips * (0.92 + 0.16 * grain), red * 0.85); l.gloss += 0.16 * red;
  float deep = smoothstep(0.45, 0.8, p.y);
  l.base = mix(l.base * mix(1.0, 0.35, smoothstep(0.10, 0.45, p.y)), vec3(0.02, 0.003, 0.003), deep);
  l.soft *= 1.0 - deep; l.shade *= 1.0 - 0.88 * deep; l.gloss *= 1.0 - deep;
  float t = (ax - 0.0125) / 0.043, arc = eye.z + 0.0215 + 0.0060 * sin(clamp(t, 0.0, 1.0) * 2.5);
  float off = (can.z - arc) / (0.0041 * (1.0 - 0.62 * clamp(t, 0.0, 1.0)) * brows);
  float brow = (1.0 - smoothstep(0.35, 1.35, abs(off))) * smoothstep(-0.08, 0.10, t) * smoothstep(1.06, 0.80, t);
  brow *= front;
  brow *= 0.52 + 0.40 * noise(vec3(ax * 900.0 - can.z * 700.0, can.z * 260.0, 1.0));
  l.base = mix(l.base, mix(hair, vec3(0.02, 0.012, 0.008), 0.35), brow); l.gloss *= 1.0 - brow;
  l.base *= mix(vec3(1), vec3(0.90, 0.81, 0.80), smoothstep(0.55, 1.0, p.z));
  float scalp = smoothstep(-1.5, 4.0, p.w + 3.0 * (grain - 0.5)) * fluff;
  l.base = mix(l.base, hair * 0.40, scalp); l.gloss *= 1.0 - 0.7 * scalp; l.soft *= 1.0 - scalp;
  return l;
}
vec3 sparkle(Look l, vec3 N, vec3 E, vec3 H, float open_, vec3 fill_way) { return vec3(0); }
"""

_SMALL = """
// eye, p: away from its middle; teeth, tongue; lashes, p: how far out, where they end
Look on_eye() {
  vec3 d = normalize(p.xyz);
  float angle = acos(clamp(-d.y, -1.0, 1.0)), spoke = noise(vec3(normalize(d.xz + 1e-5) * 9.0, 3.0));
  vec3 base = mix(vec3(0.74, 0.70, 0.67), vec3(0.60, 0.34, 0.30), smoothstep(0.75, 1.25, angle));
  vec3 ring = iris * (0.75 + 0.9 * spoke) * (0.8 + 0.9 * smoothstep(0.22, 0.40, angle));
  base = mix(ring, base, smoothstep(0.475, 0.525, angle));
  base *= (1.0 - 0.72 * exp(-pow((angle - 0.485) / 0.05, 2.0))) * smoothstep(0.165, 0.205, angle);
  return Look(base, 0.25, 30.0, 0.0, 0.95 - 0.52 * smoothstep(-0.05, 0.55, d.z));
}
Look paint(bool inside_out) {
  if (kind > 6.5 && p.x > p.y) discard;
  if (kind < 1.5) return on_eye();
  if (kind < 2.5) return Look(vec3(0.80, 0.77, 0.70), 0.08, 20.0, 1.6, smoothstep(0.042, 0.014, abs(can.x)) * 0.85);
  float depth = smoothstep(mouth.y + 0.062, mouth.y + 0.006, can.y);
  if (kind < 3.5) return Look(vec3(0.34, 0.085, 0.085), 0.10, 16.0, 0.15, 0.65 * depth);
  return Look(mix(hair, vec3(0.01), 0.75), 0.0, 8.0, 0.0, 1.0);
}
vec3 sparkle(Look l, vec3 N, vec3 E, vec3 H, float open_, vec3 fill_way) {
  if (kind > 1.5) return vec3(0);
  vec3 glint = reflect(-E, N);
  float key = smoothstep(0.965, 0.985, dot(glint, normalize(lamp_way + vec3(0.0, 0.15, 0.25))));
  return (lamp * 0.9 * key + room * 0.35 * smoothstep(0.90, 0.95, dot(glint, fill_way))) * l.shade;
}
"""

_CLOTH = """
// p: metres below the neckline, metres before the hem, which colour; of a collar or hem (kind 5) only the colour
float square(float x, float wide) { return smoothstep(wide, wide + 0.05, abs(fract(x) - 0.5)); }
float marks(int which) {
  if (which == 1) return square(can.z * 19.0, 0.22);
  if (which == 2) return 0.5 * (square(can.x * 15.0, 0.30) + square(can.z * 15.0, 0.30));
  return 1.0 - smoothstep(0.20, 0.26, length(fract(can.xz * 34.0) - 0.5));
}
Look paint(bool inside_out) {
  bool trim = kind > 4.5;
  if (!trim && min(p.x, p.y) < 0.0) discard;
  vec3 base = p.z < 0.5 ? cloth0 : p.z < 1.5 ? cloth1 : vec3(0.66, 0.66, 0.65);
  int which = int(pattern + 0.5);
  if (!trim && p.z < 0.5 && which > 0) {
    if (which == 4) base *= 0.72 + 0.5 * noise(can * vec3(300, 300, 700));
    else base = mix(base, cloth1, marks(which));
  }
  if (!trim && can.z < 0.09) base = vec3(0.030, 0.034, 0.046) * smoothstep(-0.004, 0.004, abs(can.z - 0.088));
  base *= 0.88 + 0.22 * noise(can * 420.0);
  return Look(base, 0.02, 8.0, 0.15, shade * (inside_out ? 0.35 : 1.0));
}
vec3 sparkle(Look l, vec3 N, vec3 E, vec3 H, float open_, vec3 fill_way) { return vec3(0); }
"""

_HAIR = """
// p: degrees round the head, degrees from the crown, degrees to the tip, curl
Look paint(bool inside_out) {
  vec2 around = vec2(cos(radians(p.x)), sin(radians(p.x)));
  vec3 strand = vec3(around * mix(46.0, 24.0, p.w), p.y * mix(0.035, 0.30, p.w)) + p.w * 2.0 * noise(can * 60.0);
  float lock = noise(strand * 0.35 + 7.0), fine = noise(strand * vec3(2.2, 2.2, 1.0));
  if (p.z - 5.0 * fine - 3.0 * lock < shell * 1.5) discard;
  if (shell > 0.01 && fine + 0.35 * lock < shell * mix(0.62, 0.72, p.w)) discard;
  vec3 base = (hair * (0.25 + 0.95 * fine + 0.75 * lock) + 0.006 * fine) * mix(0.55, 1.0, shell);
  return Look(base, 0.0, 14.0, 0.0, shade * mix(0.55, 1.0, shell) * (inside_out ? 0.35 : 1.0));
}
vec3 sparkle(Look l, vec3 N, vec3 E, vec3 H, float open_, vec3 fill_way) {
  vec3 way = normalize(cross(N, cross(vec3(0.0, 1.0, 0.15), N)) + 1e-4);
  float along = dot(way, H), turned = along + 0.10 * (noise(vec3(p.x * 0.35, 1.0, 2.0)) - 0.5);
  float shine = pow(max(1.0 - turned * turned, 0.0), 40.0) * (0.35 + 0.9 * noise(vec3(p.x * 1.6, p.y * 0.03, 5.0)));
  return lamp * (0.035 + 0.30 * hair) * shine * mix(0.3, 1.0, open_) * shell * l.shade;
}
"""

_LIGHT = """
void main() {
  vec3 E = normalize(-at), N = normalize(n);
  bool inside_out = dot(N, E) < 0.0;
  if (inside_out) N = -N;
  Look l = paint(inside_out);
  vec3 L = normalize(lamp_way), H = normalize(L + E); float open_ = lamp_seen();
  vec3 wrap = vec3(0.42, 0.22, 0.15) * l.soft;
  vec3 direct = max((vec3(dot(N, L)) + wrap) / (1.0 + wrap), 0.0) * mix(vec3(open_), vec3(1), wrap * 0.55);
  vec3 fill_way = normalize(vec3(-0.8 * sign(lamp_way.x), 0.15, 0.6));
  vec3 sum = l.base * l.shade * (room * (0.72 + 0.28 * N.y) + 0.16 * lamp * max(dot(N, fill_way), 0.0));
  sum += l.base * mix(1.0, l.shade, 0.6) * lamp * direct;
  sum += lamp * l.gloss * pow(max(dot(N, H), 0.0), l.sharp) * 0.55 * l.shade * mix(0.35, 1.0, open_);
  sum += l.base * (0.35 * room + 0.25 * lamp) * pow(1.0 - max(dot(N, E), 0.0), 4.0) * l.shade;
  sum += sparkle(l, N, E, H, open_, fill_way);
  sum = sum * (1.0 + sum * 0.12) / (1.0 + 0.30 * sum);
  colour = vec4(pow(clamp(sum, 0.0, 1.0), vec3(1.0 / 2.2)), 1.0);
}"""

FRAGMENTS = {name: _SHARED + paint + _LIGHT for name, paint in
             (("skin", _SKIN), ("small", _SMALL), ("cloth", _CLOTH), ("hair", _HAIR))}

DEPTH_VERTEX = """#version 330
in vec3 place; uniform mat4 lamp_view;
void main() { gl_Position = lamp_view * vec4(place, 1); }"""
DEPTH_FRAGMENT = """#version 330
void main() {}"""

BACK_VERTEX = """#version 330
in vec3 place; in vec2 where; uniform mat4 view; uniform mat4 lens; out vec2 w;
void main() { w = where; gl_Position = lens * view * vec4(place, 1); }"""
BACK_FRAGMENT = """#version 330
in vec2 w; out vec4 colour; uniform sampler2D picture;
void main() { colour = vec4(texture(picture, w).rgb, 1); }"""
