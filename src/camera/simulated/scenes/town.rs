//! Where people live, park and play.

use std::f32::consts::FRAC_1_SQRT_2;

use super::super::canvas::{Colour, lit, mix};
use super::super::geometry::{Disc, Outline, Point, Region, at, block, slab};
use super::site::{DOWN, Dash, EDGE, RIGHT, Site, WHITE, YELLOW, asphalt, concrete, grass, lawn};

const ROOFS: [Colour; 7] = [
    [128.0, 116.0, 106.0],
    [150.0, 124.0, 106.0],
    [112.0, 110.0, 112.0],
    [98.0, 92.0, 90.0],
    [164.0, 144.0, 126.0],
    [138.0, 104.0, 88.0],
    [176.0, 170.0, 162.0],
];

/// Double rows of cars with aisles between.
pub(super) fn parking_lot(site: &mut Site) {
    site.cover(asphalt);
    let full = site.dice.between(0.75, 0.92);
    for row in -5..=5 {
        let middle = row as f32 * 68.0;
        for stall in -36..=36 {
            let x = stall as f32 * 10.6;
            site.canvas.flat(&slab(at(x + 5.3, middle), DOWN, 19.0, 0.6), [188.0, 186.0, 176.0]);
            for side in [-1.0, 1.0] {
                if site.dice.chance(full) {
                    let place = at(x + site.dice.between(-0.7, 0.7), middle + side * site.dice.between(9.0, 11.5));
                    let nose = site.dice.pick([-1.0, 1.0]);
                    site.car(place, at(0.0, nose));
                }
            }
        }
        if site.dice.chance(0.3) {
            let (x, leaf) = (site.dice.between(-300.0, 300.0), site.leaf());
            site.tree(at(x, middle), 10.0, leaf);
        }
    }
}

/// Streets with house beside house.
pub(super) fn dense_residential(site: &mut Site) {
    let noise = site.noise;
    site.cover(|noise, point| mix(concrete(noise, point), grass(noise, point), 0.75 + 0.5 * noise.at(point, 30.0)));
    for street in -2..=2 {
        let middle = street as f32 * 150.0 + 40.0;
        site.canvas.fill(&slab(at(0.0, middle), RIGHT, EDGE, 20.0), |point| lit(concrete(noise, point), 1.05));
        site.canvas.fill(&slab(at(0.0, middle), RIGHT, EDGE, 15.0), |point| asphalt(noise, point));
        for side in [-1.0, 1.0] {
            houses(site, middle, side);
        }
        for _ in 0..14 {
            let (x, side) = (site.dice.between(-EDGE, EDGE), site.dice.pick([-11.0, 11.0]));
            site.car(at(x, middle + side), RIGHT);
        }
    }
}

// The houses of one side of a street, with drives before and trees behind.
fn houses(site: &mut Site, street: f32, side: f32) {
    let noise = site.noise;
    for plot in -8..=8 {
        let x = plot as f32 * 47.0 + site.dice.between(-2.0, 2.0);
        let y = street + side * (45.0 + site.dice.between(-3.0, 3.0));
        site.canvas.fill(&slab(at(x + 12.0, street + side * 26.0), DOWN, 10.0, 8.0), |point| concrete(noise, point));
        if site.dice.chance(0.5) {
            site.car(at(x + 12.0, street + side * 27.0), DOWN);
        }
        let (roof, light) = (site.dice.pick(ROOFS), site.dice.between(0.85, 1.1));
        let half = (site.dice.between(22.0, 27.0), site.dice.between(18.0, 21.0));
        let garage = at(x + 12.0, y - side * 12.0);
        site.house(garage, DOWN, (22.0, 11.0), lit(roof, light));
        let ridge = site.dice.pick([DOWN, RIGHT]);
        site.house(at(x - 2.0, y + side * 4.0), ridge, half, lit(roof, light));
        if site.dice.chance(0.6) {
            let (radius, leaf) = (site.dice.between(4.0, 8.0), site.leaf());
            let behind = at(x + site.dice.between(-22.0, 22.0), y + side * site.dice.between(26.0, 30.0));
            site.tree(behind, radius, leaf);
        }
    }
}

/// An infield of sand and grass under the middle of the picture, its home plate below.
pub(super) fn baseball_diamond(site: &mut Site) {
    const HOME: Point = at(0.0, 80.0);
    const MOUND: Point = at(0.0, 10.0);
    let noise = site.noise;
    let earth = site.dice.pick([[204.0, 178.0, 146.0], [198.0, 168.0, 136.0], [188.0, 152.0, 122.0]]);
    let earthen = move |point: Point| lit(earth, 1.0 + 0.08 * noise.rough(point, 30.0) + 0.03 * noise.at(point, 3.0));
    let turf = move |point: Point| mix(lawn(noise, point), grass(noise, point), 0.5);
    site.cover(|_, point| turf(point));
    // The foul lines run from home plate at 45 degrees.
    let foul = |point: Point| ((point.x - HOME.x).abs() + (point.y - HOME.y)) * FRAC_1_SQRT_2;
    let skin = Region(|point: Point| ((point - MOUND).length() - 98.0).max(foul(point) - 12.0));
    site.canvas.blend(&skin, 3.0, |point, _| earthen(point));
    let infield = slab(at(0.0, 14.0), at(FRAC_1_SQRT_2, FRAC_1_SQRT_2), 38.0, 38.0);
    site.canvas.blend(&infield, 2.0, |point, _| turf(point));
    for (centre, radius) in [(MOUND, 9.0), (HOME, 22.0)] {
        site.canvas.blend(&Disc { centre, radius }, 2.0, |point, _| earthen(point));
    }
    for side in [-1.0, 1.0] {
        let along = at(side * FRAC_1_SQRT_2, -FRAC_1_SQRT_2);
        site.canvas.flat(&slab(HOME + along * 150.0, along, 150.0, 0.7), WHITE);
        site.flat_roof(HOME + at(side * 66.0, 2.0), along, (20.0, 6.0), [150.0, 146.0, 140.0], 6.0);
        let stand = slab(HOME + at(side * 34.0, 46.0), at(1.0, -side * 0.4), 22.0, 8.0);
        site.cast(stand, 5.0);
        site.canvas.flat(&stand, [168.0, 166.0, 160.0]);
    }
    let track = Outline { shape: Disc { centre: HOME, radius: 270.0 }, width: 16.0 };
    site.canvas.blend(&track, 3.0, |point, _| earthen(point));
    site.woods(26.0, (9.0, 15.0), |_, point| point.y > 165.0 || (point - HOME).length() > 300.0);
}

/// Two rows of courts, fenced, with a clubhouse and trees around.
pub(super) fn tennis_court(site: &mut Site) {
    let (ground, court): (Colour, Colour) = site.dice.pick([
        ([98.0, 120.0, 102.0], [112.0, 124.0, 120.0]),
        ([136.0, 82.0, 72.0], [104.0, 122.0, 106.0]),
        ([104.0, 122.0, 106.0], [86.0, 104.0, 118.0]),
    ]);
    let noise = site.noise;
    site.cover(grass);
    for (top, bottom) in [(-118.0, -4.0), (4.0, 118.0)] {
        let yard = block(-114.0, top, 114.0, bottom);
        site.cast(yard, 5.0);
        site.canvas.fill(&yard, |point| lit(ground, 1.0 + 0.08 * noise.rough(point, 40.0)));
        site.canvas.flat(&Outline { shape: yard, width: 1.5 }, lit(ground, 0.55));
        for x in [-74.0, 0.0, 74.0] {
            tennis_lines(site, at(x, (top + bottom) * 0.5), court);
        }
    }
    let (x, y) = (site.dice.pick([-190.0, 190.0]), site.dice.between(-60.0, 60.0));
    site.house(at(x, y), DOWN, (40.0, 26.0), [150.0, 124.0, 106.0]);
    site.woods(22.0, (7.0, 13.0), |_, point| {
        let clear = (point - at(x, y)).length() > 60.0;
        clear && (point.x.abs() > 132.0 || point.y.abs() > 136.0)
    });
}

// One court: 23.8 m by 11 m, with its singles, service and centre lines and its net.
fn tennis_lines(site: &mut Site, centre: Point, court: Colour) {
    let noise = site.noise;
    let outer = slab(centre, DOWN, 47.5, 22.0);
    site.canvas.fill(&outer, |point| lit(court, 1.0 + 0.05 * noise.rough(point, 30.0)));
    // Lines are thinner than a pixel: paler than their paint.
    let paint = mix(court, WHITE, 0.6);
    for (length, width) in [(47.5, 22.0), (47.5, 16.5), (25.6, 16.5)] {
        site.canvas.flat(&Outline { shape: slab(centre, DOWN, length, width), width: 1.2 }, paint);
    }
    site.canvas.flat(&slab(centre, DOWN, 25.6, 0.6), paint);
    site.canvas.flat(&slab(centre, RIGHT, 25.0, 0.6), lit(court, 0.6));
}

/// Two wide streets crossing, cars waiting at the stop lines, shops with their car parks in the corners.
pub(super) fn crossroads(site: &mut Site) {
    site.cover(grass);
    let noise = site.noise;
    site.canvas.blend(&Region(|point| kerb(point) - 10.0), 1.5, |point, _| lit(concrete(noise, point), 1.08));
    site.canvas.blend(&Region(kerb), 1.5, |point, _| {
        let worn = noise.at(at(point.x * 0.1, point.y), 6.0) + noise.at(at(point.x, point.y * 0.1), 6.0);
        lit(asphalt(noise, point), 1.12 - 0.05 * worn)
    });
    for axis in [RIGHT, DOWN, RIGHT * -1.0, DOWN * -1.0] {
        arm(site, axis);
    }
    for (x, y) in [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)] {
        corner(site, at(x, y));
    }
}

// How far a point is off the two streets, whose kerbs meet in a bend.
fn kerb(point: Point) -> f32 {
    const HALF_WIDTH: f32 = 34.0;
    const BEND: f32 = 36.0;
    let (x, y) = (point.x.abs() - HALF_WIDTH, point.y.abs() - HALF_WIDTH);
    if x > 0.0 && y > 0.0 { BEND - at((BEND - x).max(0.0), (BEND - y).max(0.0)).length() } else { x.min(y) }
}

// One of the four arms of the crossing, leading away along `axis`.
fn arm(site: &mut Site, axis: Point) {
    let across = axis.across();
    for line in [66.0, 77.0] {
        site.canvas.flat(&slab(axis * line, across, 32.0, 0.7), [188.0, 186.0, 180.0]);
    }
    for side in [-1.0, 1.0] {
        site.canvas.flat(&slab(axis * 240.0 + across * side, axis, 156.0, 0.6), YELLOW);
        site.dashes(axis * 84.0 + across * (side * 16.0), axis, 250.0, Dash { length: 12.0, gap: 28.0, width: 0.9 });
    }
    for lane in [-25.0, -9.0] {
        for place in 0..site.dice.pick([0, 1, 2, 3]) {
            site.car(axis * (92.0 + place as f32 * 25.0) + across * lane, axis * -1.0);
        }
    }
    for lane in [9.0, 25.0] {
        let leaving = site.dice.between(40.0, 220.0);
        site.car(axis * leaving + across * lane, axis);
    }
}

// A shop, its car park and some trees in one corner of the crossing.
fn corner(site: &mut Site, towards: Point) {
    let place = |x: f32, y: f32| at(towards.x * x, towards.y * y);
    let noise = site.noise;
    let yard = slab(place(152.0, 152.0), RIGHT, 82.0, 82.0);
    site.canvas.fill(&yard, |point| lit(concrete(noise, point), 0.92));
    let (roof, light) = (site.dice.pick(ROOFS), site.dice.between(0.9, 1.2));
    let (across, down) = (site.dice.between(92.0, 112.0), site.dice.between(92.0, 112.0));
    if site.dice.chance(0.5) {
        site.flat_roof(place(across, down), RIGHT, (28.0, 24.0), lit(roof, light), 10.0);
    } else {
        site.house(place(across, down), RIGHT, (28.0, 22.0), lit(roof, light));
    }
    for stall in 0..16 {
        if site.dice.chance(0.6) {
            site.car(place(78.0 + stall as f32 * 11.0, 152.0), DOWN);
        }
    }
    for _ in 0..16 {
        let along = site.dice.between(64.0, 240.0);
        let tree = site.dice.pick([place(along, 62.0), place(62.0, along), place(along, 180.0), place(136.0, along)]);
        let (radius, leaf) = (site.dice.between(5.0, 11.0), site.leaf());
        site.tree(tree, radius, leaf);
    }
}
