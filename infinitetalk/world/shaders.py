"""GLSL of the renderer. Colours are linear until the last line; paint is placed on the average body."""

KINDS = ("skin", "eye", "teeth", "tongue", "cloth", "trim", "hair", "lash")

VERTEX = """#version 330
in vec3 place; in vec3 normal; in vec3 canonical; in vec4 paint; in vec2 kind_shade;
uniform mat4 view; uniform mat4 lens; uniform mat4 lamp_view; uniform int shells; uniform float depth;
out vec3 n; out vec3 can; out vec4 p; out vec3 at; out float kind; out float shade; out float shell; out vec3 lit;
void main() {
  shell = shells > 1 ? float(gl_InstanceID) / float(shells - 1) : 1.0;
  vec4 seen = view * vec4(place - normal * depth * (1.0 - shell), 1);
  at = seen.xyz; n = mat3(view) * normal; can = canonical; p = paint; kind = kind_shade.x; shade = kind_shade.y;
  lit = (lamp_view * vec4(place + normal * 0.004, 1)).xyz * 0.5 + 0.5;
  gl_Position = lens * seen;
}"""

FRAGMENT = """#version 330
in vec3 n; in vec3 can; in vec4 p; in vec3 at; in float kind; in float shade; in float shell; in vec3 lit;
out vec4 colour;
uniform vec3 skin, lips, iris, hair, cloth0, cloth1; uniform vec3 lamp_way, lamp, room;
uniform vec3 eye, mouth; uniform float brows, stubble, pattern, fluff; uniform sampler2D shadow;

float dice(vec3 q) { q = fract(q * 0.3183099 + 0.1); q *= 17.0; return fract(q.x * q.y * q.z * (q.x + q.y + q.z)); }
float noise(vec3 q) {
  vec3 i = floor(q), f = fract(q); f = f * f * (3.0 - 2.0 * f);
  return mix(mix(mix(dice(i), dice(i + vec3(1,0,0)), f.x), mix(dice(i + vec3(0,1,0)), dice(i + vec3(1,1,0)), f.x), f.y),
             mix(mix(dice(i + vec3(0,0,1)), dice(i + vec3(1,0,1)), f.x), mix(dice(i + vec3(0,1,1)), dice(i + vec3(1,1,1)), f.x), f.y), f.z);
}
float lamp_seen() {
  if (any(lessThan(lit.xy, vec2(0.0))) || any(greaterThan(lit.xy, vec2(1.0)))) return 1.0;
  float seen = 0.0;
  for (int i = 0; i < 4; i++) {
    vec2 o = (vec2(i & 1, i >> 1) - 0.5) * 0.006;
    seen += texture(shadow, lit.xy + o).r > lit.z - 0.004 ? 1.0 : 0.0;
  }
  return seen * 0.25;
}
struct Look { vec3 base; float gloss; float sharp; float soft; float shade; };

Look on_skin() {
  Look l = Look(skin, 0.16, 18.0, 1.0, shade);
  float mottled = noise(can * 210.0), ax = abs(can.x);
  l.base *= 0.92 + 0.16 * mottled;
  vec2 cheek = (vec2(ax, can.z) - vec2(0.047, mouth.z + 0.030)) / vec2(0.024, 0.020);
  l.base *= mix(vec3(1), vec3(1.06, 0.86, 0.84), 0.5 * exp(-dot(cheek, cheek)) * step(can.y, -0.07));
  vec2 tip = (vec2(ax, can.z) - vec2(0.0, mouth.z + 0.035)) / vec2(0.016, 0.012);
  l.base *= mix(vec3(1), vec3(1.05, 0.88, 0.86), 0.6 * exp(-dot(tip, tip)) * step(can.y, -0.15));
  vec2 socket = (vec2(ax, can.z) - vec2(eye.x, eye.z - 0.004)) / vec2(0.025, 0.016);
  l.base *= mix(vec3(1), vec3(0.86, 0.78, 0.78), 0.55 * exp(-dot(socket, socket) * dot(socket, socket)) * step(can.y, -0.09));
  float beard = smoothstep(mouth.z + 0.012, mouth.z - 0.022, can.z) + smoothstep(0.020, 0.004, abs(can.z - mouth.z - 0.017)) * smoothstep(0.038, 0.018, ax);
  beard = max(beard, smoothstep(0.052, 0.062, ax) * smoothstep(eye.z - 0.008, eye.z - 0.035, can.z));
  beard *= smoothstep(mouth.z - 0.095, mouth.z - 0.06, can.z) * smoothstep(-0.030, -0.055, can.y) * (1.0 - p.x);
  l.base *= mix(vec3(1), vec3(0.50, 0.47, 0.49), clamp(beard, 0.0, 1.0) * stubble * (0.55 + 0.45 * noise(can * 900.0)));
  float red = smoothstep(0.30, 0.72, p.x);
  l.base = mix(l.base, lips * (0.9 + 0.2 * noise(can * vec3(700, 90, 90))), red * 0.85); l.gloss += 0.16 * red;
  if (p.y > 0.45) { l.base = mix(lips * 0.6, vec3(0.055, 0.006, 0.007), smoothstep(0.45, 0.8, p.y)); l.soft = 0.0; l.shade *= mix(1.0, 0.12, smoothstep(0.45, 0.8, p.y)); l.gloss = 0.0; l.base *= mix(1.0, 0.3, smoothstep(0.5, 0.8, p.y)); }
  float t = (ax - 0.0125) / 0.043, arc = eye.z + 0.0215 + 0.0060 * sin(clamp(t, 0.0, 1.0) * 2.5);
  if (can.y < -0.08 && t > -0.1 && t < 1.1) {
    float thick = 0.0041 * (1.0 - 0.62 * clamp(t, 0.0, 1.0)) * brows, off = (can.z - arc) / thick;
    float hairs = 0.55 + 0.45 * noise(vec3(ax * 900.0 - can.z * 700.0, can.z * 260.0, 1.0));
    float in_brow = (1.0 - smoothstep(0.35, 1.35, abs(off))) * smoothstep(-0.08, 0.10, t) * smoothstep(1.06, 0.80, t);
    l.base = mix(l.base, mix(hair, vec3(0.02, 0.012, 0.008), 0.35), in_brow * hairs * 0.92); l.gloss *= 1.0 - in_brow;
  }
  l.base *= mix(1.0, 0.35, smoothstep(0.10, 0.45, p.y));
  float rim = smoothstep(0.55, 1.0, p.z);
  l.base = mix(l.base, l.base * vec3(0.80, 0.62, 0.60), rim * 0.5);
  float scalp = smoothstep(-1.5, 4.0, p.w + 3.0 * (noise(can * 260.0) - 0.5));
  l.base = mix(l.base, hair * 0.55, scalp * fluff); l.gloss *= 1.0 - 0.7 * scalp * fluff; l.soft *= 1.0 - scalp * fluff;
  return l;
}
Look on_eye(vec3 normal_) {
  vec3 d = normalize(p.xyz);
  float angle = acos(clamp(-d.y, -1.0, 1.0)), spoke = noise(vec3(normalize(d.xz + 1e-5) * 9.0, 3.0));
  vec3 base = mix(vec3(0.74, 0.70, 0.67), vec3(0.60, 0.34, 0.30), smoothstep(0.75, 1.25, angle));
  vec3 ring = iris * (0.75 + 0.9 * spoke) * (0.8 + 0.9 * smoothstep(0.22, 0.40, angle));
  base = mix(ring, base, smoothstep(0.475, 0.525, angle));
  base *= 1.0 - 0.72 * exp(-pow((angle - 0.485) / 0.05, 2.0));
  base *= smoothstep(0.165, 0.205, angle);
  float lid = 1.0 - 0.55 * smoothstep(-0.05, 0.55, d.z);
  return Look(base, 0.25, 30.0, 0.0, lid * 0.95);
}
Look on_cloth(bool trim) {
  vec3 base = p.z < 0.5 ? cloth0 : p.z < 1.5 ? cloth1 : vec3(0.66, 0.66, 0.65);
  vec3 other = p.z < 0.5 ? cloth1 : cloth0;
  float mark = 0.0, weave = noise(can * 420.0);
  if (!trim && p.z < 0.5) {
    if (pattern > 4.5) { float c = abs(can.x); mark = 0.0; if (can.y < -0.03) { base *= 1.0 - 0.35 * (1.0 - smoothstep(0.0008, 0.0022, abs(c - 0.013))) ; vec2 b = vec2(can.x, mod(can.z, 0.075) - 0.037); base = mix(base, vec3(0.5), 1.0 - smoothstep(0.0038, 0.0052, length(b))); } }
    else if (pattern > 3.5) base *= 0.72 + 0.5 * noise(can * vec3(300, 300, 700));
    else if (pattern > 2.5) { vec2 c = fract(vec2(can.x, can.z) * 34.0) - 0.5; mark = 1.0 - smoothstep(0.20, 0.26, length(c)); }
    else if (pattern > 1.5) { vec2 c = abs(fract(vec2(can.x, can.z) * 15.0) - 0.5); mark = 0.5 * (smoothstep(0.30, 0.34, c.x) + smoothstep(0.30, 0.34, c.y)); }
    else if (pattern > 0.5) { float c = abs(fract(can.z * 19.0) - 0.5); mark = smoothstep(0.22, 0.27, c); }
  }
  base = mix(base, other, mark) * (0.86 + 0.26 * weave);
  return Look(base, 0.02, 8.0, 0.15, shade);
}
Look on_hair() {
  vec2 around = vec2(cos(radians(p.x)), sin(radians(p.x)));
  float curl = p.w;
  vec3 strand = vec3(around * mix(46.0, 24.0, curl), p.y * mix(0.035, 0.30, curl)) + curl * 2.0 * noise(can * 60.0);
  float lock = noise(strand * 0.35 + 7.0), fine = noise(strand * vec3(2.2, 2.2, 1.0));
  float tip = p.z - 5.0 * fine - 3.0 * lock;
  if (tip < shell * 1.5) discard;
  if (shell > 0.01 && fine + 0.35 * lock < shell * mix(0.62, 0.72, curl)) discard;
  vec3 base = hair * (0.45 + 0.65 * fine + 0.55 * lock) + 0.004 * mix(0.55, 1.0, shell);
  return Look(base, 0.0, 14.0, 0.0, shade * mix(0.55, 1.0, shell));
}
void main() {
  int k = int(kind + 0.5);
  vec3 view_way = normalize(-at), N = normalize(n);
  if (k == 4 && min(p.x, p.y) < 0.0) discard;
  bool inside_out = dot(N, view_way) < 0.0;
  if (inside_out) N = -N;
  Look l;
  if (k == 0) l = on_skin();
  else if (k == 1) l = on_eye(N);
  else if (k == 2) l = Look(vec3(0.70, 0.655, 0.56), 0.3, 30.0, 0.2, smoothstep(0.042, 0.016, abs(can.x)) * 0.75);
  else if (k == 3) l = Look(vec3(0.34, 0.085, 0.085), 0.10, 16.0, 0.15, 0.65 * smoothstep(mouth.y + 0.062, mouth.y + 0.006, can.y));
  else if (k == 4) l = on_cloth(false);
  else if (k == 5) l = on_cloth(true);
  else if (k == 6) l = on_hair();
  else { if (p.x > p.y) discard; l = Look(mix(hair, vec3(0.01), 0.75), 0.0, 8.0, 0.0, 1.0); }
  if (inside_out && (k == 4 || k == 5 || k == 6)) l.shade *= 0.35;
  vec3 L = normalize(lamp_way); float facing = dot(N, L), open_ = lamp_seen();
  vec3 wrap = vec3(0.42, 0.22, 0.15) * l.soft;
  vec3 direct = max((vec3(facing) + wrap) / (1.0 + wrap), 0.0) * mix(vec3(open_), vec3(1), wrap * 0.55);
  vec3 fill_way = normalize(vec3(-0.8 * sign(lamp_way.x), 0.15, 0.6));
  vec3 sum = l.base * l.shade * (room * (0.72 + 0.28 * N.y) + 0.16 * lamp * max(dot(N, fill_way), 0.0));
  sum += l.base * mix(1.0, l.shade, 0.6) * lamp * direct;
  vec3 H = normalize(L + view_way); float fresnel = pow(1.0 - max(dot(N, view_way), 0.0), 4.0);
  sum += lamp * l.gloss * pow(max(dot(N, H), 0.0), l.sharp) * 0.55 * l.shade * mix(0.35, 1.0, open_);
  sum += l.base * (0.35 * room + 0.25 * lamp) * fresnel * l.shade;
  if (k == 6) {
    vec3 strand_way = normalize(cross(N, cross(vec3(0.0, 1.0, 0.15), N)) + 1e-4);
    float along = dot(strand_way, H), shine = pow(max(1.0 - along * along, 0.0), 60.0);
    sum += lamp * (0.02 + 0.22 * hair) * shine * mix(0.3, 1.0, open_) * shell * l.shade * (0.6 + 0.6 * noise(vec3(p.x * 1.3, p.y * 0.05, 1.0)));
  }
  if (k == 1) {
    vec3 glint = reflect(-view_way, N);
    sum += lamp * 0.9 * smoothstep(0.965, 0.985, dot(glint, normalize(lamp_way + vec3(0.0, 0.15, 0.25)))) * l.shade;
    sum += room * 0.35 * smoothstep(0.90, 0.95, dot(glint, fill_way)) * l.shade;
  }
  sum = sum * (1.0 + sum * 0.12) / (1.0 + 0.30 * sum);
  colour = vec4(pow(clamp(sum, 0.0, 1.0), vec3(1.0 / 2.2)), 1.0);
}"""

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
