"""Sentences without meaning, but with all the sounds of a language in their usual company, from a seed.

A pattern is a row of slots; noun phrases are written whole, so that no language needs rules of agreement.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from numpy.random import Generator

Slots = Mapping[str, tuple[str, ...]]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split("/"))


_ENGLISH: Slots = {
    "pattern": _words("N V M A. / A, N V M. / N V M P M. / W, N V M A? / we A V M P N. / my B is J P M, B is J A. / "
                      "N V M, and N V M A. / O! N V M. / O, J and J. / if N V M, N V M A."),
    "N": _words("the river / a small boat / my mother / your old friend / the next train / every bright window / our "
                "village / a purple umbrella / the first morning / somebody / the famous baker / this quiet beach / "
                "that young woman / the public garden / a warm pullover / her best song / the foggy mountain / my "
                "father's pipe / the blue bottle / a simple problem / the judge / another voice / a thick feather"),
    "M": _words("a wooden bridge / the market / both maps / the whole movement / a paper box / his measured answer / "
                "many apples / the empty room / five flowers / the harbour lamp / my favourite picture / a broad "
                "avenue / the machine / our big garden / a bowl of soup / the power of the moon / some good advice / "
                "these heavy shoes / the other team / a pleasant journey / butter and jam / nothing"),
    "V": _words("moves / believes / brings / follows / opens / remembers / pushes / makes / improves / finds / wants "
                "/ covers / watches / has built / may become / will save / supports / never mixes / avoids / keeps"),
    "A": _words("today / below the bridge / very well / maybe tomorrow / before breakfast / above all / by the window "
                "/ at home / with great pleasure / this week / from time to time / in public / as usual / for free"),
    "P": _words("over / under / before / after / through / about / above / with / for / behind / beyond / beside"),
    "W": _words("why / maybe / perhaps / but how / of course / by the way / believe me / you see"),
    "J": _words("small / warm / beautiful / empty / perfect / rough / blue / impossible / full / fair / funny / cheap"),
    "B": _words("boat / voice / map / family / beard / problem / house / job / baby / food"),
    "O": _words("oh / please / well / no / hello / bravo / come over here / about time / push / move up")}

_SPANISH: Slots = {
    "pattern": _words("N V M A. / A, N V M. / N V M P M. / ¿W N V M A? / N V M, y N V M A. / ¡O! N V M. / "
                      "si N V M, N V M A. / O, J y J. / no V M P N."),
    "N": _words("el río / mi madre / un barco pequeño / la ventana / el primer tren / tu viejo amigo / la playa vacía "
                "/ el pueblo / una buena voz / la mañana / el jefe / aquella mujer / nuestra familia / el panadero / "
                "un perro marrón / la guitarra / el hombre amable / cada puerta / mi abuelo / la lluvia / un pájaro"),
    "M": _words("el puente / una manzana / la plaza pública / los mapas / el jardín / un vaso de agua / la verdad / el "
                "problema / muchas flores / una carta breve / el mercado / la máquina / otro camino / un libro azul / "
                "pan y mermelada / el zapato / la montaña / una palabra / su mejor respuesta / el fuego / nada"),
    "V": _words("mueve / busca / abre / recuerda / lleva / mejora / puede ver / compra / empuja / prefiere / ha visto "
                "/ guarda / quiere / siempre olvida / baja con / hace / nombra / vende / sube por / rompe"),
    "A": _words("por la mañana / hoy / bajo el puente / muy bien / tal vez mañana / en casa / con mucho gusto / "
                "sin prisa / esta semana / a veces / en público / como siempre / por favor / junto a la puerta"),
    "P": _words("sobre / bajo / para / por / con / sin / hasta / desde / contra"),
    "W": _words("por qué / cómo / cuándo / dónde / acaso"),
    "J": _words("pequeño / bonito / vacío / azul / imposible / hermoso / rápido / suave / amable / famoso / joven"),
    "O": _words("oh / hombre / bueno / no / hola / ven aquí / basta / vamos / mira / qué bonito / buenos días")}

_FRENCH: Slots = {
    "pattern": _words("N V M A. / A, N V M. / N V M P M. / W N V M A ? / N V M, et N V M A. / O ! N V M. / "
                      "quand N V M, N V M A. / O, J et J. / on V M P N."),
    "N": _words("la rivière / ma mère / un petit bateau / la fenêtre / le premier train / ton vieil ami / la plage "
                "vide / le village / une belle voix / le matin / le boulanger / cette jeune femme / notre famille / un "
                "chien brun / mon grand-père / la pluie / chaque porte / un peu de vent / le peuple / une poupée"),
    "M": _words("le pont / une pomme / la place publique / les cartes / le jardin / un verre d'eau / la vérité / le "
                "problème / beaucoup de fleurs / un bon pain blanc / le marché / la machine / un autre chemin / du "
                "beurre / le feu / la montagne / un mot / sa meilleure réponse / les nuages / rien / une jupe bleue"),
    "V": _words("bouge / cherche / ouvre / porte / améliore / peut voir / achète / pousse / préfère / a vu / garde / "
                "veut / oublie / fait / nomme / vend / remplit / apporte / a bu / couvre"),
    "A": _words("ce matin / aujourd'hui / sous le pont / très bien / peut-être demain / à la maison / avec plaisir / "
                "sans bruit / cette semaine / parfois / en public / comme toujours / près de la porte / un peu"),
    "P": _words("sur / sous / pour / par / avec / sans / devant / vers / contre"),
    "W": _words("pourquoi / comment / quand / où / est-ce que"),
    "J": _words("petit / beau / vide / bleu / impossible / rapide / doux / aimable / jeune / chaud / bref / lourd"),
    "O": _words("oh / bon / non / bonjour / viens ici / ça suffit / regarde / bravo / mais oui / bien sûr / allons")}

_GERMAN: Slots = {
    "pattern": _words("N V M A. / N V A M. / W V N M A? / N V M, und N V M A. / O! N V M. / O, J und J."),
    "N": _words("der Fluss / meine Mutter / ein kleines Boot / das Fenster / der erste Zug / dein alter Freund / die "
                "Bäckerin / jede Tür / eine schöne Stimme / der Morgen / unsere Familie / ein brauner Hund / die Puppe "
                "/ der müde Vogel / mein Opa / das Volk"),
    "M": _words("eine Brücke / den Apfel / viele Blumen / das Problem / den Garten / ein Glas Wasser / Brot und Butter "
                "/ die Maschine / den Weg / ein blaues Buch / das Feuer / die Berge / ein Wort / nichts / die Pfeife"),
    "V": _words("bewegt / sucht / öffnet / bringt / verbessert / kauft / braucht / vergisst / macht / findet / füllt / "
                "bemerkt / liebt / prüft"),
    "A": _words("heute / unter der Brücke / sehr gut / vielleicht morgen / zu Hause / mit Freude / ohne Mühe / diese "
                "Woche / manchmal / wie immer / neben der Tür / bald"),
    "W": _words("warum / wie / wann / wo / woher"),
    "J": _words("klein / warm / schön / leer / unmöglich / blau / voll / jung / berühmt / rau / früh"),
    "O": _words("oh / bitte / na gut / nein / hallo / komm her / pass auf / guten Morgen / bravo / aber ja")}

_ITALIAN: Slots = {
    "pattern": _words("N V M A. / A, N V M. / N V M P M. / W N V M A? / N V M, e N V M A. / O! N V M. / "
                      "se N V M, N V M A. / O, J e J."),
    "N": _words("il fiume / mia madre / una piccola barca / la finestra / il primo treno / il tuo vecchio amico / la "
                "spiaggia / il paese / una bella voce / la mattina / il fornaio / quella giovane donna / un cane bruno "
                "/ ogni porta / mio nonno / la pioggia / il popolo"),
    "M": _words("il ponte / una mela / la piazza / le mappe / il giardino / un bicchiere d'acqua / la verità / il "
                "problema / molti fiori / un libro azzurro / pane e burro / il fuoco / la montagna / una parola / "
                "niente / la bambola / gli ombrelli"),
    "V": _words("muove / cerca / apre / porta / migliora / può vedere / compra / spinge / preferisce / ha visto / "
                "vuole / dimentica / riempie / vende / rompe / guarda"),
    "A": _words("oggi / sotto il ponte / molto bene / forse domani / a casa / con piacere / senza rumore / questa "
                "settimana / a volte / in pubblico / come sempre / vicino alla porta"),
    "P": _words("su / sotto / per / con / senza / verso / contro / dopo"),
    "W": _words("perché / come / quando / dove / forse"),
    "J": _words("piccolo / bello / vuoto / blu / impossibile / rapido / dolce / giovane / famoso / breve / ampio"),
    "O": _words("oh / bene / no / ciao / vieni qui / basta / guarda / bravo / ma sì / buongiorno / prego")}

LANGUAGES: Mapping[str, Slots] = MappingProxyType(
    {"en": _ENGLISH, "es": _SPANISH, "fr": _FRENCH, "de": _GERMAN, "it": _ITALIAN})
"""Words by the first part of a BCP-47 tag."""


def sentence(rng: Generator, language: str) -> str:
    """One sentence in one of `LANGUAGES`."""
    slots = LANGUAGES[language]
    out = []
    for token in _pick(rng, slots["pattern"]).split():
        name = token.strip("¿¡.,!?")
        out.append(token.replace(name, _pick(rng, slots[name])) if name in slots else token)
    return " ".join(out)


def _pick(rng: Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]
